"""Words: what every other room talks about. No clock, chance, I/O, event loop or environment."""
