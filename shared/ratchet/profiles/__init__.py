"""Profiles: how an example is formatted for training, and how an answer is parsed."""
