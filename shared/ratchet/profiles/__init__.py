"""Profiles: how an example is dressed for training, and how an answer is undressed."""
