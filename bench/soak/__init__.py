"""A gateway under load and faults, which must hold no more after minutes than it did at first."""
