"""Choosing a model for a task: the classifiers with their calls, their budget and their memory."""
