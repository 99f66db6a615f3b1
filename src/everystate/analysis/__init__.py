"""Measures of recorded states: each a function of one layer that returns labelled results."""
