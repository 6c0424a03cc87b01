"""One half of a suite chooses, the other half testifies.

Whatever picks a checkpoint by its score (the best so far, the next candidate) reads the choosing half; whatever then
asks whether a checkpoint is worse than the one so picked, or how well a fitted number does, reads the testing half.
Picking and testing on the same items is the winner's curse.
"""

from __future__ import annotations

import hashlib

from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.record import Evaluation


def is_choosing(item_id: str) -> bool:
    """Whether an item belongs to the choosing half: one bit of its id's hash, the same everywhere and for ever."""
    return hashlib.sha256(b"half:" + item_id.encode()).digest()[0] % 2 == 0


def is_testing(item_id: str) -> bool:
    return not is_choosing(item_id)


def choosing_score(evaluation: Evaluation) -> float:
    """Success rate on the choosing half: what the best so far, and the next candidate, are picked by."""
    grades = [item.correct for item in evaluation.items if is_choosing(item.item_id)]
    if not grades:
        raise EmptyEvaluation(f"{evaluation.checkpoint_id} has no graded item in the choosing half.")
    return sum(grades) / len(grades)
