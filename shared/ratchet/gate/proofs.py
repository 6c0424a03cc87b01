"""The statistical tests of one challenge, from paired outcomes: what is proved better, what not worse, what is harmed.

Each proof is a value with its numbers (``ratchet.gate.proof_values``). ``ratchet.gate.decision`` decides from them and
``ratchet.gate.reasons`` puts them into words.

An item may lack a score: the judge's reply was unreadable, a reference did not fit. If such items were left out, a
challenger whose strange answers cannot be judged would be proved better on the rest. So one that only the champion's
record has a score of counts as the worst possible difference, and one that only the challenger's has as no gain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
import scipy
from numpy.typing import ArrayLike

from ratchet.evaluation.paired_outcomes import OutcomeTable, PairedScores, ScoreTable, total_of
from ratchet.evaluation.record import GENERAL, Metric
from ratchet.gate.proof_values import FamilyProof, GeneralProof, LevelHarm, ScoreProof, TargetProof
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
from ratchet.stats.split_plan import SPREADS

HARM_ALPHA = 0.05
"""Family-wise alpha (Holm) to prove a single level worse. A constant, since raising it refuses equal models."""

LARGEST_MARGINS: dict[Metric, float] = {"accuracy": 0.15, "loss": 0.25, "judge": 0.25}
"""Largest margin that few items are given. A quarter of a nat is 28 % more perplexity."""

STEADY_SPREAD = 0.02
"""Smallest standard deviation of differences that is believed of few items, as a share of the bound."""

FEWEST_GENERAL = 10
"""General items below which a proof is not asked for: even without any drift it could fail."""

SHORTENED_LIMIT = 0.25
"""Share of general answers that may be shortened to less than a third of the base's. A shorter one can be as good, so
that only more than this, proved at HARM_ALPHA, is refused."""


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
    differences = (*_counting_missing(task), *(0.0,) * task.only_after)
    effect = _mean(differences)
    p = float(mean_above_p(differences, 0.0, bound)) if task.n else 1.0
    return TargetProof(
        task=task.family,
        metric=task.metric,
        n=task.n,
        missing=task.only_before,
        before=task.before,
        after=task.after,
        effect=effect,
        clipped_effect=_mean(clipped(differences, bound)),
        interval=mean_interval(differences, bound) if task.n and with_interval else None,
        p=p,
        alpha=alpha,
        proved=p <= alpha and effect > 0,
    )


def _counting_missing(task: PairedScores) -> tuple[float, ...]:
    """The differences, of items that only the earlier record has a score of the worst possible one."""
    return (*task.differences, *(-BOUNDS[task.metric],) * task.only_before)


def _mean(differences: ArrayLike) -> float:
    """The mean; 0 of nothing."""
    values = np.asarray(differences, np.float64)
    return float(values.mean()) if len(values) else 0.0


def prove_family(
    table: OutcomeTable,
    family: str,
    levels: Collection[int],
    settings: GateSettings,
    safety_alpha: float = SAFETY_ALPHA,
) -> FamilyProof:
    """Paired non-inferiority over the mastered levels of one family.

    ``ratchet.gate.decision`` has the rule of small pools.
    """
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


def expected_share(screened: OutcomeTable, family: str) -> float | None:
    """The share of a task's items on which the two models differ, by their eval records; None without an item there.

    A challenger that flips many confirm items by chance would be granted a wider margin if the share were theirs. One
    flip of four items is added, since few eval items may show none by luck.
    """
    pool = total_of(cell for cell in screened if cell.family == family)
    return (pool.gains + pool.losses + 1) / (pool.n + 4) if pool.n else None


def expected_spread(screened: ScoreTable, family: str) -> float | None:
    """The standard deviation of a task's clipped differences, by the eval records, pooled with four assumed items.

    None without two items of the task that both records have a score of.
    """
    task = next((task for task in screened if task.family == family), None)
    if task is None or task.n < 2:
        return None
    values = clipped(task.differences, BOUNDS[task.metric])
    squares = float(values.var(ddof=1)) * (task.n - 1)
    return sqrt((4 * SPREADS[task.metric] ** 2 + squares) / (task.n + 3))


def prove_task(
    table: OutcomeTable, family: str, settings: GateSettings, expected_share: float | None = None
) -> FamilyProof:
    """Paired non-inferiority of a user's task, over all its levels, whatever its success rate.

    Half-learnt items flip far more often than mastered ones, so the share of discordant items counts that the eval
    records let expect; where these say nothing, the share seen. The margin grows until an equal model passes with
    ``settings.power`` at alpha 1 - power, so that a drop by the margin is refused with that probability.
    """
    levels = {cell.level for cell in table if cell.family == family}
    pool = total_of(cell for cell in table if cell.family == family)
    share = max(PROTECTED_DISCORDANT_SHARE, pool.discordant_share if expected_share is None else expected_share)
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


def prove_score_safe(task: PairedScores, settings: GateSettings, expected_spread: float | None = None) -> ScoreProof:
    """Paired non-inferiority of a task of metric loss or judge, with a margin that its items can afford.

    The margin depends on the spread that is expected by the eval records, and without one on the spread seen.
    """
    wanted = settings.loss_margin if task.metric == "loss" else settings.margin
    margin, alpha = _affordable(task, wanted, settings.power, expected_spread)
    bound = BOUNDS[task.metric]
    testable = margin <= LARGEST_MARGINS[task.metric]
    differences = _counting_missing(task)
    effect = _mean(differences)
    p = float(mean_above_p(differences, -margin, bound)) if task.n else 1.0
    passes = p <= alpha and effect >= -margin
    return ScoreProof(
        family=task.family,
        metric=task.metric,
        n=task.n,
        unscored=task.unscored,
        missing=task.only_before,
        before=task.before,
        after=task.after,
        effect=effect,
        lower_bound=mean_lower_bound(differences, alpha, bound) if task.n else -bound,
        margin=margin,
        rule="non_inferiority" if testable else "no_net_loss",
        p=p,
        alpha=alpha,
        safe=passes if testable else task.n > 0 and effect >= 0,
    )


def _affordable(
    task: PairedScores, wanted: float, power: float, expected_spread: float | None = None
) -> tuple[float, float]:
    """Margin and alpha: the wanted margin at SAFETY_ALPHA if an equal model passes with ``power``, else at 1 - power,
    else a larger margin.
    """
    bound = BOUNDS[task.metric]
    if task.n < 2:
        return bound, 1 - power
    seen = float(clipped(task.differences, bound).std(ddof=1)) if expected_spread is None else expected_spread
    spread = max(seen, STEADY_SPREAD * bound)
    if affordable_margin(task.n, spread, SAFETY_ALPHA, power, bound) <= wanted:
        return wanted, SAFETY_ALPHA
    return max(wanted, affordable_margin(task.n, spread, 1 - power, power, bound)), 1 - power


def prove_general(task: PairedScores, settings: GateSettings) -> GeneralProof:
    """The drift from the base's record to the challenger's on the base's own answers."""
    bound = BOUNDS["loss"]
    _, alpha = _affordable(task, settings.general_margin, settings.power)
    differences = _counting_missing(task)
    p = float(mean_above_p(differences, -settings.general_margin, bound)) if task.n else 1.0
    answers, drift = task.n + task.unscored, -_mean(differences)
    is_tested = task.n >= FEWEST_GENERAL
    shortened_p = float(scipy.special.bdtrc(task.shortened - 1, answers, SHORTENED_LIMIT)) if task.shortened else 1.0
    is_shortened = shortened_p <= HARM_ALPHA
    is_near = task.n > 0 and drift <= settings.general_margin and (p <= alpha or not is_tested)
    return GeneralProof(
        n=task.n,
        missing=task.only_before,
        before=task.before,
        after=task.after,
        drift=drift,
        drift_at_most=-mean_lower_bound(differences, alpha, bound) if task.n else bound,
        margin=settings.general_margin,
        p=p,
        alpha=alpha,
        answers=answers,
        shortened=task.shortened,
        shortened_limit=SHORTENED_LIMIT,
        shortened_p=shortened_p,
        is_shortened=is_shortened,
        is_near=is_near,
        safe=is_near and not is_shortened,
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
