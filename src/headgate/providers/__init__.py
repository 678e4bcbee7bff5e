"""Wire formats and errors of upstreams; no sockets. Siblings, not relatives."""
