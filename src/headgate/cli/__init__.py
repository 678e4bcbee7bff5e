"""The command line. Every command has its module; `main.py` puts them together."""
