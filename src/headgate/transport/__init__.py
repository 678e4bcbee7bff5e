"""Sockets, no wire formats."""
