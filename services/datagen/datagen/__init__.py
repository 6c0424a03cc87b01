"""The curriculum's mix of families and levels, and the generation of batches by it."""
