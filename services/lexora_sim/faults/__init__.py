"""Faults on demand: what they are, who asked for them, what they do to an answer."""
