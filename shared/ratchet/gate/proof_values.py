"""The results of the tests of one challenge: values with their numbers, which ``ratchet.gate.proofs`` computes.

Effects and margins are fractions for graded and judged tasks, nats per token for loss; a positive effect is an
improvement.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.evaluation.record import Metric
from ratchet.stats.proportions import Interval


class FrozenModel(BaseModel):
    """Base class of all parts of a decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TargetProof(FrozenModel):
    """One target: is the challenger better? ``alpha`` is the challenge's, divided by the number of targets.

    All graded items are one target, with ``gains`` and ``losses`` and the exact one-sided McNemar test; its ``task`` is
    None unless they are all of one task. Each task of another metric is one, with the means ``before`` and ``after``;
    ``effect`` is the mean of its differences as they are, ``clipped_effect`` and ``interval`` of the clipped ones.
    ``n`` items have a score in both records; ``missing`` ones only in the champion's, which count as the worst
    difference.
    """

    task: str | None
    metric: Metric
    n: int
    missing: int = 0
    gains: int | None = None
    losses: int | None = None
    before: float | None = None
    after: float | None = None
    effect: float
    clipped_effect: float
    interval: Interval | None
    p: float
    alpha: float
    proved: bool


class MarginProof(FrozenModel):
    """One family on ``n`` items: is the challenger not worse by ``margin`` or more?

    ``rule`` is ``no_net_loss`` if the items are too few to prove anything even if the two models never differ.
    """

    family: str
    n: int
    effect: float
    lower_bound: float
    margin: float
    rule: Literal["non_inferiority", "no_net_loss"]
    p: float
    alpha: float
    safe: bool


class FamilyProof(MarginProof):
    """One protected family of graded items, pooled.

    The pool has the mastered levels of a registered family, and all levels of a user's task (``is_task``). ``enough``
    is True if the pool has ``items_needed`` items; with fewer, ``alpha`` is relaxed.
    """

    is_task: bool = False
    levels: tuple[int, ...]
    items_needed: int
    enough: bool
    gains: int
    losses: int


class ScoreProof(MarginProof):
    """One task of metric loss or judge. Neither may the mean of the differences as they are be below the margin, which
    clipping could hide. ``unscored`` items lack a score; ``missing`` ones of them only in the challenger's record, and
    count as the worst difference.
    """

    metric: Metric
    unscored: int
    missing: int
    before: float
    after: float


class GeneralProof(FrozenModel):
    """The general task: has the challenger drifted from the base model by less than ``margin``?

    ``drift`` is how much more loss the base's own answers have, in nats per token. It is the mean log-likelihood ratio
    of base and challenger along them, so it estimates the divergence KL(base‖challenger) per token. ``shortened``
    answers have less than a third of the tokens of the base's; ``shortened_p`` is of the exact binomial test that their
    share is above ``shortened_limit``.
    ``missing`` items have a loss in the base's record alone, and count as the worst difference.
    """

    n: int
    missing: int
    before: float
    after: float
    drift: float
    drift_at_most: float
    margin: float
    p: float
    alpha: float
    answers: int
    shortened: int
    shortened_limit: float
    shortened_p: float
    is_shortened: bool
    is_near: bool
    safe: bool


class LevelHarm(FrozenModel):
    """One level: is the challenger proved worse? ``p_holm`` is corrected for all levels of the suite.

    ``of`` is ``answers`` where not the grades of a level but the faults of a task's answers are counted: ``losses`` are
    newly empty, endless or repeating, ``gains`` no longer.
    """

    family: str
    level: int
    of: Literal["grades", "answers"] = "grades"
    n: int
    gains: int
    losses: int
    p: float
    p_holm: float
    harmed: bool
