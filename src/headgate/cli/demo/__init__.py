"""`headgate demo`: 120 prompts, six keys, small quotas, some faults, no network."""
