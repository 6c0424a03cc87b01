"""Symbolic answers: steps in prefix form ``(op arg …)``, and markers around the final answer only."""
