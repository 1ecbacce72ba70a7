"""Which channels go together: the rules of the layers, and liveness."""
