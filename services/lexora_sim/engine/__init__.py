"""The engine model: sequences, scheduling, caches, timing and the numbers they leave behind."""
