"""Mining, correction and diversity: finding what a model gets wrong, examples for it, the data gate, and coverage."""
