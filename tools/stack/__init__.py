"""The topology of deploy/compose without containers: `python -m tools.stack`."""
