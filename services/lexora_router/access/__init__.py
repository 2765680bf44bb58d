"""From what a caller shows to the principal that it is."""
