"""Streams that survive their engine, the parts without I/O: what may be continued, from where, and in which shape."""
