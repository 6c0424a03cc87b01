"""Ratchet: language models that train themselves around the clock and never get worse."""

__version__ = "0.1.0"
