"""A scoreboard for whoever spreads calls over quotas: bench/README.md says how to add yours."""
