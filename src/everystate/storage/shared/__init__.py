"""A trace that many processes write at once, each its own rows, on a disk or an object store."""
