"""Decisions without I/O and without a clock: `now` and randomness are parameters."""
