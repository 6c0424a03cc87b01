"""Symbolic answers: steps in prefix notation ``(op arg …)``, and markers around the final answer."""
