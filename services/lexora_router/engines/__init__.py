"""One attempt at one address: connections, requests and answers of an engine."""
