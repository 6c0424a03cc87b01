"""The tiny model and its tokenizer, for tests of plug-ins and of Ratchet itself."""

from __future__ import annotations

from ratchet.inference.tiny import build_tiny_model, build_tiny_tokenizer

__all__ = ["build_tiny_model", "build_tiny_tokenizer"]
