"""What single pieces cost, in one process and on one machine. Run all with `python -m bench.micro`."""
