"""Training examples, and how they are read from people's files."""
