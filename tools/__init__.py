"""What the repository is kept in order with. No part of the wheel."""
