"""The router: typed gRPC in, engines out."""
