"""Traces and metrics for OpenTelemetry: imported only where an endpoint is set, since the package is optional."""
