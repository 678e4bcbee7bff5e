"""Homes of shared state: memory for one process, Valkey or Redis for many. One contract suite."""
