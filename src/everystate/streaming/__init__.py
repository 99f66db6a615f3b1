"""Long sequences: in chunks of time, to disk as they come, interrupted and resumed."""
