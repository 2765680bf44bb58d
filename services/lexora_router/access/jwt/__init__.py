"""Tokens (JWT, RFC 7519) of issuers that are configured: read, verified, and mapped to principals."""
