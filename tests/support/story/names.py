"""Ids of the story's checkpoints and batches."""

from __future__ import annotations


def checkpoint_id(ordinal: int) -> str:
    return f"{ordinal:02d}" + "c" * 30


def batch_id(ordinal: int) -> str:
    return f"{ordinal:02d}" + "b" * 30
