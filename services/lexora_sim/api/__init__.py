"""The HTTP endpoints: requests in, JSON and event streams out."""
