"""The quota ledger's maths: limits, charges, choice. Pure, in integers, and the Lua script's twin."""
