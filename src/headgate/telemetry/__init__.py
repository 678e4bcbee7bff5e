"""What an operator sees. Vendors are imported where they are used, never at the door."""
