"""What the newest checkpoints get wrong: the mined items themselves, how they were found, and what lessons changed.

The format of a mined set is that of mining (a line of JSON an item); only what is shown is read of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.data.example import Example
from ratchet.errors import ArtifactError, PreconditionFailed
from ratchet.ledger.tables import BatchRow, MinedRow
from ratchet.tasks.graders import gold
from ratchet.views.checkpoint_names import find_checkpoint, label
from ratchet.views.mining_topics import Impact, Mined, correction_batches, mined_sets
from ratchet.views.view_model import Scale

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore

KINDS = {
    "forgotten": "wrong, although an earlier champion answered it right",
    "overconfident_wrong": "wrong, although the model was sure (a mean token probability of 0.9 or more)",
    "wrong": "wrong, and less sure than that",
    "unstable": "a variant is answered wrong, the item itself right",
    "low_margin": "right, but another token was about as likely",
    "hard": "no grader checks it, and the loss of its reference answer is among the largest of its task",
}
"""Kinds of weak items, in the order of how they are shown."""

FOUND_BY = {
    "probe": "in the probe record",
    "fresh": "as a fresh problem of its level",
    "near": "near another weak item",
    "rows": "among the training rows of a task",
}
"""Where an item was found; anything else is a kind of variant."""


@dataclass(frozen=True)
class WeakItem:
    """One item of a set, the weakest first."""

    kind: str
    family: str
    level: int
    question: str
    gold: str
    answer: str
    error: str
    found: str
    weakness: float


@dataclass(frozen=True)
class SearchArm:
    """An arm of the search, such as problems near a weak one: of ``asked`` items ``weak`` were weak."""

    name: str
    weak: int
    asked: int

    @property
    def share(self) -> float:
        return self.weak / self.asked if self.asked else 0.0


@dataclass(frozen=True)
class FollowUp:
    """How the items of the set before did when they were asked again, beside random ones of the same levels."""

    mined: int
    mined_failed: int
    random: int
    random_failed: int
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        return self.low > 0

    @property
    def sentence(self) -> str:
        if self.is_better:
            return "mined items are failed more often than random ones: mining finds what is weak"
        return "the difference may be chance: mining did not demonstrably beat random items here"


@dataclass(frozen=True)
class MinedSet:
    """What was mined from a checkpoint. ``kinds`` counts the items of each kind, in the order of KINDS."""

    ordinal: int
    row: MinedRow
    kinds: tuple[tuple[str, int], ...]
    arms: tuple[SearchArm, ...]
    follow_up: FollowUp | None

    @property
    def asked(self) -> int:
        return int((self.row.numbers or {}).get("asked", 0)) + int((self.row.numbers or {}).get("rows_asked", 0))

    @property
    def best(self) -> SearchArm | None:
        return self.arms[0] if self.arms else None


@dataclass(frozen=True)
class LessonEffect:
    """The effect of a batch of lessons on an error class at a checkpoint, with the ends of its interval on a scale."""

    impact: Impact
    low: float
    mean: float
    high: float
    zero: float

    @property
    def result(self) -> str:
        if self.impact.row.low > 0:
            return "helped"
        return "harmed" if self.impact.row.high < 0 else "not shown"


@dataclass(frozen=True)
class Lesson:
    """A correction batch with its effects."""

    batch: BatchRow
    effects: tuple[LessonEffect, ...]

    @property
    def classes(self) -> Mapping[str, int]:
        """Correction examples by error class."""
        found: Mapping[str, int] = self.batch.provenance.get("classes", {})
        return found

    @property
    def count(self) -> int:
        return int(self.batch.provenance.get("counts", {}).get("corrections", 0))

    @property
    def ordinary(self) -> int:
        return int(self.batch.provenance.get("counts", {}).get("replay", 0))


def sets_page(session: Session, limit: int, before: int | None = None) -> tuple[list[MinedSet], int | None]:
    """The sets of the checkpoints before that number, the newest first, and where the next page begins."""
    found = mined_sets(session, limit + 1, before)
    return [_set(each) for each in found[:limit]], found[limit - 1].ordinal if len(found) > limit else None


def find_set(session: Session, name: str = "") -> MinedSet | None:
    """The set of that checkpoint, else the newest that has items, else the newest; None where there is none at all.

    Raises PreconditionFailed for a checkpoint that is not known or was not mined.
    """
    if name:
        checkpoint = find_checkpoint(session, name)
        row = session.get(MinedRow, checkpoint.id)
        if row is None:
            raise PreconditionFailed(
                f"{label(checkpoint)} has not been mined: a newer one was measured before its turn."
            )
        return _set(Mined(row, checkpoint.ordinal))
    newest = select(MinedRow.checkpoint_id).where(MinedRow.count > 0).order_by(MinedRow.created_at.desc()).limit(1)
    checkpoint_id = session.scalar(newest)
    if checkpoint_id is not None:
        return find_set(session, checkpoint_id)
    found = mined_sets(session, 1)
    return _set(found[0]) if found else None


def read_items(artifacts: ArtifactStore, row: MinedRow, kind: str = "") -> list[WeakItem]:
    """The items of a set, the weakest first. Raises ArtifactError where it cannot be read.

    A set has at most a few hundred items.
    """
    if row.artifact is None:
        return []
    try:
        found = [_item(json.loads(line)) for line in artifacts.open_lines(row.artifact)]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(f"the mined set of {row.checkpoint_id} has another format: {error!r:.200}") from error
    return [item for item in found if kind in ("", item.kind)]


def lessons(session: Session, limit: int, offset: int = 0) -> list[Lesson]:
    """Correction batches with their effects, the newest first."""
    found = correction_batches(session, limit, offset)
    scale = Scale.of(end for _, impacts in found for each in impacts for end in (each.row.low, each.row.high))
    return [Lesson(batch, tuple(_effect(each, scale) for each in impacts)) for batch, impacts in found]


def _set(mined: Mined) -> MinedSet:
    by_kind: Mapping[str, int] = mined.row.by_category
    order = [*KINDS, *(name for name in by_kind if name not in KINDS)]
    yields: Mapping[str, Sequence[int]] = mined.numbers.get("yields", {})
    arms = [SearchArm(name, int(weak), int(asked)) for name, (weak, asked) in yields.items()]
    return MinedSet(
        mined.ordinal,
        mined.row,
        tuple((name, by_kind[name]) for name in order if by_kind.get(name)),
        tuple(sorted(arms, key=lambda arm: (-arm.share, -arm.asked))),
        _follow_up(mined.numbers.get("follow_up")),
    )


def _follow_up(told: Mapping[str, Any] | None) -> FollowUp | None:
    if not told:
        return None
    counts = {name: int(told[name]) for name in ("mined", "mined_failed", "random", "random_failed")}
    return FollowUp(**counts, low=float(told["excess"]["low"]), high=float(told["excess"]["high"]))


def _item(fields: Mapping[str, Any]) -> WeakItem:
    example = Example.model_validate(fields["example"])
    found = str(fields.get("found_by", "probe"))
    return WeakItem(
        kind=str(fields["category"]),
        family=example.family or "text",
        level=example.level,
        question=example.prompt_text if len(example.prompt) > 1 else example.question,
        gold=gold(example),
        answer=str(fields["answer"]),
        error=str(fields.get("error") or ""),
        found=FOUND_BY.get(found, f"as a variant ({found})"),
        weakness=float(fields["weakness"]),
    )


def _effect(impact: Impact, scale: Scale) -> LessonEffect:
    ends = (impact.row.low, impact.fall, impact.row.high, 0.0)
    return LessonEffect(impact, *(scale.place(end) for end in ends))
