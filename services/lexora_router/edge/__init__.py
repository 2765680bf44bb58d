"""The router's edge: messages of the contract to calls and back, and the gRPC server. Nothing below has messages."""
