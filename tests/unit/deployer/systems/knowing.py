"""What models of these tests know: which items a checkpoint has right."""

from __future__ import annotations

from ratchet.data.example import Example


def easy(item: Example) -> bool:
    return item.level == 1


def everything(_item: Example) -> bool:
    return True


def nothing(_item: Example) -> bool:
    return False


def by_luck(item: Example) -> bool:
    """Right on the suite that screens, wrong on the one that decides."""
    return item.metadata["source"] == "eval" and item.level == 1
