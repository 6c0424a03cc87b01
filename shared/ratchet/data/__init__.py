"""Training examples, and reading them from users' files."""
