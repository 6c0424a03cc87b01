"""What a ranking keeps of an evaluation: one bit an item, so that a thousand checkpoints fit in memory and ledger."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.record import Evaluation, Rate, selection_score


class Tally(BaseModel):
    """Grades of one checkpoint by family and item id, packed eight to a byte, as hex; ``by_family`` is in that order.

    ``conditions`` names suite, grader, decoding, dtype, engine and GPU class; ``items`` is a hash of the item ids.
    Tallies are ranked together only where both are equal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    conditions: dict[str, str]
    items: str
    n: int
    grades: str
    by_family: dict[str, Rate]
    selection_score: float

    @property
    def kind(self) -> tuple[str, ...]:
        """What two tallies must share to be ranked together, as a key."""
        return (self.items, *(f"{name}={value}" for name, value in sorted(self.conditions.items())))

    def unpacked(self) -> NDArray[np.uint8]:
        """Grades as 0 and 1, shape (n,)."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.grades), np.uint8), count=self.n)


def tally(evaluation: Evaluation) -> Tally:
    """One pass over the items. Raises EmptyEvaluation where there are none."""
    if not evaluation.items:
        raise EmptyEvaluation(f"{evaluation.checkpoint_id} has no graded item, so it cannot be ranked.")
    items = sorted(evaluation.items, key=lambda item: (item.family, item.item_id))
    families: dict[str, list[bool]] = {}
    for item in items:
        families.setdefault(item.family, []).append(item.correct)
    return Tally(
        checkpoint_id=evaluation.checkpoint_id,
        conditions=evaluation.key.conditions(),
        items=hashlib.sha256("\n".join(item.item_id for item in items).encode()).hexdigest()[:16],
        n=len(items),
        grades=np.packbits([item.correct for item in items]).tobytes().hex(),
        by_family={name: Rate(correct=sum(g), n=len(g)) for name, g in families.items()},
        selection_score=selection_score(evaluation),
    )
