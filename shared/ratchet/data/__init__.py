"""Examples, batches, the adapter table for people's files, and the gate before the queue."""
