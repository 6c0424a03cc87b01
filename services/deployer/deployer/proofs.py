"""The statistical tests of one challenge, from paired outcomes: what is proved better, what not worse, what is harmed.

Each proof is a value with its numbers. ``deployer.gate`` decides from them and ``deployer.gate_reasons`` puts them into
words. Effects and margins are fractions for graded and judged tasks, nats per token for loss; a positive effect is an
improvement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.paired_outcomes import OutcomeTable, PairedScores, ScoreTable, total_of
from ratchet.evaluation.record import GENERAL, Metric
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_scores import (
    BOUNDS,
    affordable_margin,
    clipped,
    mean_above_p,
    mean_interval,
    mean_lower_bound,
)
from ratchet.stats.paired_tests import (
    difference_interval,
    holm,
    lower_bound,
    mcnemar_better,
    noninferiority_p,
)
from ratchet.stats.power import (
    PROTECTED_DISCORDANT_SHARE,
    SAFETY_ALPHA,
    affordable_alpha,
    items_needed,
    min_items,
    pool_items,
)
from ratchet.stats.proportions import Interval

HARM_ALPHA = 0.05
"""Family-wise alpha (Holm) to prove a single level worse. A constant, since raising it refuses equal models."""

LARGEST_MARGINS: dict[Metric, float] = {"accuracy": 0.15, "loss": 0.25, "judge": 0.25}
"""Largest margin that few items are given. A quarter of a nat is 28 % more perplexity."""

STEADY_SPREAD = 0.02
"""Smallest standard deviation of differences that is believed of few items, as a share of the bound."""

FEWEST_GENERAL = 10
"""General items below which a proof is not asked for: even without any drift it could fail."""

SHORTENED_LIMIT = 0.25
"""Largest share of general answers that may be shortened to less than a third of the base's."""


class FrozenModel(BaseModel):
    """Base class of all parts of a decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TargetProof(FrozenModel):
    """One target: is the challenger better? ``alpha`` is the challenge's, divided by the number of targets.

    All graded items are one target, with ``gains`` and ``losses`` and the exact one-sided McNemar test; its ``task`` is
    None unless they are all of one task. Each task of another metric is one, with the means ``before`` and ``after``;
    ``effect`` is the mean of its differences as they are, ``clipped_effect`` and ``interval`` of the clipped ones.
    """

    task: str | None
    metric: Metric
    n: int
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
    clipping could hide."""

    metric: Metric
    unscored: int
    before: float
    after: float


class GeneralProof(FrozenModel):
    """The general task: has the challenger drifted from the base model by less than ``margin``?

    ``drift`` is how much more loss the base's own answers have, in nats per token. It is the mean log-likelihood ratio
    of base and challenger along them, so it estimates the divergence KL(base‖challenger) per token. ``shortened``
    answers have less than a third of the tokens of the base's; their share may not exceed ``shortened_limit``.
    """

    n: int
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


def prove_targets(
    table: OutcomeTable, scores: ScoreTable, alpha: float, tasks: Collection[str] = ()
) -> tuple[TargetProof, ...]:
    """Paired superiority of each target, at ``alpha`` over all of them together (Bonferroni).

    ``tasks`` are the user's: where all graded items are of one of them, the target has its name.
    """
    scored = [task for task in scores if task.family != GENERAL]
    share = alpha / max(1, len(scored) + bool(table))
    families = {cell.family for cell in table}
    only = next(iter(families)) if len(families) == 1 and families <= set(tasks) else None
    graded = [prove_graded(table, share, only)] if table else []
    return (*graded, *(prove_scores(task, share) for task in scored))


def prove_graded(table: OutcomeTable, alpha: float, task: str | None = None) -> TargetProof:
    """Paired superiority over all graded items."""
    total = total_of(table)
    p = float(mcnemar_better(total.gains, total.losses))
    return TargetProof(
        task=task,
        metric="accuracy",
        n=total.n,
        gains=total.gains,
        losses=total.losses,
        effect=total.effect,
        clipped_effect=total.effect,
        interval=difference_interval(total.gains, total.losses, total.n),
        p=p,
        alpha=alpha,
        proved=p <= alpha,
    )


def prove_scores(task: PairedScores, alpha: float, *, with_interval: bool = True) -> TargetProof:
    """Paired superiority of one task. The mean of the differences as they are must be an improvement, too."""
    bound = BOUNDS[task.metric]
    p = float(mean_above_p(task.differences, 0.0, bound)) if task.n else 1.0
    return TargetProof(
        task=task.family,
        metric=task.metric,
        n=task.n,
        before=task.before,
        after=task.after,
        effect=task.effect,
        clipped_effect=float(np.mean(clipped(task.differences, bound))) if task.n else 0.0,
        interval=mean_interval(task.differences, bound) if task.n and with_interval else None,
        p=p,
        alpha=alpha,
        proved=p <= alpha and task.effect > 0,
    )


def prove_family(
    table: OutcomeTable,
    family: str,
    levels: Collection[int],
    settings: GateSettings,
    safety_alpha: float = SAFETY_ALPHA,
) -> FamilyProof:
    """Paired non-inferiority over the mastered levels of one family. ``deployer.gate`` has the rule of small pools."""
    return _family_proof(
        table,
        family,
        levels,
        margin=settings.margin,
        discordant_share=PROTECTED_DISCORDANT_SHARE,
        needed=pool_items(settings),
        power=settings.power,
        safety_alpha=safety_alpha,
    )


def prove_task(table: OutcomeTable, family: str, settings: GateSettings) -> FamilyProof:
    """Paired non-inferiority of a user's task, over all its levels, whatever its success rate.

    Half-learnt items flip far more often than mastered ones, so the observed share of discordant items counts. The
    margin grows until an equal model passes with ``settings.power`` at alpha 1 - power, so that a drop by the margin is
    refused with that probability.
    """
    levels = {cell.level for cell in table if cell.family == family}
    pool = total_of(cell for cell in table if cell.family == family)
    share = max(PROTECTED_DISCORDANT_SHARE, pool.discordant_share)
    z = 2 * NormalDist().inv_cdf(settings.power)
    margin = min(max(settings.margin, z * sqrt(share / max(pool.n, 1))), LARGEST_MARGINS["accuracy"])
    needed = items_needed(share, settings.margin, SAFETY_ALPHA, settings.power)
    return _family_proof(
        table,
        family,
        levels,
        margin=margin,
        discordant_share=share,
        needed=needed,
        power=settings.power,
        safety_alpha=SAFETY_ALPHA,
        is_task=True,
    )


def _family_proof(
    table: OutcomeTable,
    family: str,
    levels: Collection[int],
    *,
    margin: float,
    discordant_share: float,
    needed: int,
    power: float,
    safety_alpha: float,
    is_task: bool = False,
) -> FamilyProof:
    pool = total_of(cell for cell in table if cell.family == family and cell.level in levels)
    alpha = affordable_alpha(pool.n, discordant_share, margin, safety_alpha, power)
    testable = pool.n >= min_items(margin, alpha)
    p = float(noninferiority_p(pool.gains, pool.losses, pool.n, margin)) if pool.n else 1.0
    return FamilyProof(
        family=family,
        is_task=is_task,
        levels=tuple(sorted(levels)),
        n=pool.n,
        items_needed=needed,
        enough=pool.n >= needed,
        gains=pool.gains,
        losses=pool.losses,
        effect=pool.effect,
        lower_bound=float(lower_bound(pool.gains, pool.losses, pool.n, alpha)) if pool.n else -1.0,
        margin=margin,
        rule="non_inferiority" if testable else "no_net_loss",
        p=p,
        alpha=alpha,
        safe=p <= alpha if testable else pool.n > 0 and pool.losses <= pool.gains,
    )


def prove_score_safe(task: PairedScores, settings: GateSettings) -> ScoreProof:
    """Paired non-inferiority of a task of metric loss or judge, with a margin that its items can afford."""
    wanted = settings.loss_margin if task.metric == "loss" else settings.margin
    margin, alpha = _affordable(task, wanted, settings.power)
    bound = BOUNDS[task.metric]
    testable = margin <= LARGEST_MARGINS[task.metric]
    p = float(mean_above_p(task.differences, -margin, bound)) if task.n else 1.0
    passes = p <= alpha and task.effect >= -margin
    return ScoreProof(
        family=task.family,
        metric=task.metric,
        n=task.n,
        unscored=task.unscored,
        before=task.before,
        after=task.after,
        effect=task.effect,
        lower_bound=mean_lower_bound(task.differences, alpha, bound) if task.n else -bound,
        margin=margin,
        rule="non_inferiority" if testable else "no_net_loss",
        p=p,
        alpha=alpha,
        safe=passes if testable else task.n > 0 and task.effect >= 0,
    )


def _affordable(task: PairedScores, wanted: float, power: float) -> tuple[float, float]:
    """Margin and alpha: the wanted margin at SAFETY_ALPHA if an equal model passes with ``power``, else at 1 - power,
    else a larger margin.
    """
    bound = BOUNDS[task.metric]
    if task.n < 2:
        return bound, 1 - power
    spread = max(float(clipped(task.differences, bound).std(ddof=1)), STEADY_SPREAD * bound)
    if affordable_margin(task.n, spread, SAFETY_ALPHA, power, bound) <= wanted:
        return wanted, SAFETY_ALPHA
    return max(wanted, affordable_margin(task.n, spread, 1 - power, power, bound)), 1 - power


def prove_general(task: PairedScores, settings: GateSettings) -> GeneralProof:
    """The drift from the base's record to the challenger's on the base's own answers."""
    bound = BOUNDS["loss"]
    _, alpha = _affordable(task, settings.general_margin, settings.power)
    p = float(mean_above_p(task.differences, -settings.general_margin, bound)) if task.n else 1.0
    answers, drift = task.n + task.unscored, -task.effect
    is_tested = task.n >= FEWEST_GENERAL
    is_near = task.n > 0 and drift <= settings.general_margin and (p <= alpha or not is_tested)
    return GeneralProof(
        n=task.n,
        before=task.before,
        after=task.after,
        drift=drift,
        drift_at_most=-mean_lower_bound(task.differences, alpha, bound) if task.n else bound,
        margin=settings.general_margin,
        p=p,
        alpha=alpha,
        answers=answers,
        shortened=task.shortened,
        shortened_limit=SHORTENED_LIMIT,
        is_near=is_near,
        safe=is_near and task.shortened <= SHORTENED_LIMIT * answers,
    )


def find_harm(table: OutcomeTable, alpha: float, scores: Sequence[PairedScores] = ()) -> tuple[LevelHarm, ...]:
    """One-sided tests of each level, and of the answers of each task without grades, being worse, with Holm's
    correction for their number.
    """
    untested = {"p": 1.0, "p_holm": 1.0, "harmed": False}
    levels = [LevelHarm(**cell.model_dump(), **untested) for cell in table]
    levels += [
        LevelHarm(
            family=task.family,
            level=1,
            of="answers",
            n=task.n + task.unscored,
            gains=task.mended_faults,
            losses=task.new_faults,
            **untested,
        )
        for task in scores
    ]
    found = mcnemar_better([level.losses for level in levels], [level.gains for level in levels])
    raw = [float(p) for p in found]
    return tuple(
        level.model_copy(update={"p": p, "p_holm": corrected, "harmed": corrected <= alpha})
        for level, p, corrected in zip(levels, raw, holm(raw), strict=True)
    )
