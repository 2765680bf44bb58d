"""Faults on demand: what they are, and what they do to an answer."""
