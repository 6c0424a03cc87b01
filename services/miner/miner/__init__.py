"""Mining, correction and diversity: what a model gets wrong, examples made of it, the data gate, and coverage."""
