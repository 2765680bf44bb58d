"""Engines: how to speak to them, which endpoints there are, what they serve and whether they live."""
