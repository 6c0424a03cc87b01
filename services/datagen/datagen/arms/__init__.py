"""The arms of the curriculum experiment, one module a strategy."""
