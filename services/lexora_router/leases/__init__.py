"""What a replica holds of what all replicas share, so that calls need not ask the store."""
