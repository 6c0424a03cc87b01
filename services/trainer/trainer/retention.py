"""Retention: which checkpoints may lose their bytes. Pure; the ledger's rows stay for ever."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """A checkpoint whose bytes are on disk."""

    id: str
    ordinal: int
    size_bytes: int


def expendable(checkpoints: Sequence[Kept], protected: Collection[str], limit_bytes: float) -> list[str]:
    """Ids to delete, the oldest first, until the rest fits ``limit_bytes``. Never a protected one, nor the newest."""
    if not checkpoints:
        return []
    newest_first = sorted(checkpoints, key=lambda checkpoint: checkpoint.ordinal, reverse=True)
    held = sum(checkpoint.size_bytes for checkpoint in checkpoints)
    deleted = []
    for checkpoint in reversed(newest_first[1:]):
        if held <= limit_bytes:
            break
        if checkpoint.id not in protected:
            deleted.append(checkpoint.id)
            held -= checkpoint.size_bytes
    return deleted
