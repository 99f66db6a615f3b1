"""Observe, replay, verify: from a framework's call to a trace."""
