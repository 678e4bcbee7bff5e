"""Benchmarks: figures with the machine they were taken on. `bench/README.md` says how to read them."""
