"""The path of a call: `pipeline.py` holds the order, `stages/` what happens at each step."""
