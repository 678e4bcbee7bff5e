"""The ledger at the size of a large house: 10,000 domains, 64 processes, a million calls a minute."""
