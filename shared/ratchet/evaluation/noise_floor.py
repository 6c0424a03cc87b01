"""The noise floor of judging: how many grades of an unchanged model change when it is asked the same again.

In half precision the logits of an item depend on the batch that it is in, so that a tie may be decided otherwise. Such
flips are as likely gains as losses, so the paired tests keep their level; but they hide small gains, and whoever reads
a difference should know how large one of nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from ratchet.evaluation.record import Evaluation, paired
from ratchet.stats.proportions import wilson

CONFIDENCE = 0.95
Item = TypeVar("Item")

NOISE_ITEMS = 200
"""Items that are asked a second time: if none of them flips, the share of flips is at most 1.9 % (95 %)."""


class NoiseFloor(BaseModel):
    """What changed when a model was asked again in batches of another size.

    ``changed`` answers of ``items`` have another text; of ``graded`` ones ``flips`` have another grade. ``upper`` is
    the upper end of the 95 % interval (Wilson) of the share of flips, or of changed texts where nothing is graded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    dtype: str
    gpu_class: str
    items: int
    changed: int
    graded: int
    flips: int
    upper: float

    @property
    def conditions(self) -> tuple[str, str, str]:
        """Engine, dtype and GPU class."""
        return self.engine, self.dtype, self.gpu_class

    @property
    def under(self) -> str:
        """The conditions in words, under which it is kept."""
        return f"{self.engine} in {self.dtype} on {self.gpu_class}"

    @property
    def sentence(self) -> str:
        """What was measured, for people."""
        changed = f"{self.changed} of {self.items} answers changed"
        graded = f", {self.flips} of {self.graded} grades" if self.graded else ""
        return (
            f"Noise floor of {self.under}: asked again in batches of another size, {changed}{graded} "
            f"(at most {self.upper:.1%} at 95 %)."
        )

    @property
    def share(self) -> float:
        """The share of flips, or of changed texts where nothing is graded."""
        return self.flips / self.graded if self.graded else self.changed / self.items


def noise_sample(items: Sequence[Item]) -> list[Item]:
    """At most ``NOISE_ITEMS`` of the items, evenly spread, since a suite has its tasks and levels one after another."""
    return list(items[:: max(1, ceil(len(items) / NOISE_ITEMS))])


def noise_floor(first: Evaluation, again: Evaluation) -> NoiseFloor:
    """The noise floor, from the records of one model on the same items. Raises NotComparable for other conditions."""
    pairs = paired(first, again)
    graded = [(one, two) for one, two in pairs if one.correct is not None and two.correct is not None]
    flips = sum(one.correct != two.correct for one, two in graded)
    changed = sum(one.answer != two.answer for one, two in pairs)
    interval = wilson(flips, len(graded), CONFIDENCE) if graded else wilson(changed, len(pairs), CONFIDENCE)
    return NoiseFloor(
        engine=first.key.engine,
        dtype=first.key.dtype,
        gpu_class=first.key.gpu_class,
        items=len(pairs),
        changed=changed,
        graded=len(graded),
        flips=flips,
        upper=interval.high,
    )
