"""Engines that are found while the gateway runs: one file per source, and what follows a source."""
