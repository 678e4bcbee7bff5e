"""`python -m bench.rivals.gateway`: gateways in turn on one pinned core, the same calls for each."""
