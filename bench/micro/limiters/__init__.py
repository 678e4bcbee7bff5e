"""Limiters at the same work: one key, a limit that is never reached, as many decisions as go."""
