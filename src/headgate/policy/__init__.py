"""Decisions: pure functions and small states. Time and chance are arguments."""
