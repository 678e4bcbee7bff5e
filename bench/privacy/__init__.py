"""What the recognisers find, and what they take for it: `python -m bench.privacy`."""
