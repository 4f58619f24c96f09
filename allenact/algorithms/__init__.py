"""Training algorithms: on-policy, synchronous; and the interface of off-policy losses."""
