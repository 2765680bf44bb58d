"""HTTP/1.1 as uvicorn would write it, byte by byte, with a hand on the socket for faults."""
