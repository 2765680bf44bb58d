"""The router as a process: start, listen, reload, drain, memory, metrics port."""
