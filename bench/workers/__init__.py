"""How connections spread over the workers of a gateway."""
