"""`make bench`: what the gateway costs per call and per streamed token (docs/performance.md)."""
