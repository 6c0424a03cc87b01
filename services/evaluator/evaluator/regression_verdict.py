"""Whether a checkpoint is worse than the live champion, or than the best so far.

Both baselines were picked for their scores, the best so far among many. So they are picked on the selection split of
the eval items and the checkpoint is tested against them on the test split (``ratchet.evaluation.record``); picked and
tested on the same items, an equal checkpoint would soon look worse every third time. Every comparison, with either
baseline, overall, by family and by level, and that of the loss, is one hypothesis of one Holm correction.

Tasks measured by loss or by an LLM judge are compared by Gaffke's test (``ratchet.stats.paired_scores``). The general
task is left to the gate, which bounds its drift from the base model.

The loss of the right answers rises before answers change, and fewer items suffice to show it. Only levels that the
baseline had learnt count: the loss of the others fluctuates during training without harm. They are picked on the
selection split, and the loss is compared on the test split. Differences are clipped at one nat a token, so that no
single item decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.paired_outcomes import (
    OutcomeCounts,
    OutcomeTable,
    PairedScores,
    ScoreTable,
    outcome_table,
    score_table,
    total_of,
)
from ratchet.evaluation.record import (
    GENERAL,
    Evaluation,
    ItemRecord,
    Metric,
    in_selection_split,
    in_test_split,
    level_rates,
    paired,
)
from ratchet.settings.judging import RegressionSettings
from ratchet.stats.paired_scores import BOUNDS, mean_above_p, mean_interval, mean_lower_bound
from ratchet.stats.paired_tests import difference_intervals, holm, lower_bound, mcnemar_better
from ratchet.stats.power import smallest_detectable
from ratchet.stats.proportions import Interval

Severity = Literal["none", "warning", "critical"]
Floats = NDArray[np.float64]

POWER = 0.8
"""Chance for which the smallest visible drop of a verdict is stated."""

LOSS_RISE = 0.05
"""Nats a token: a rise has to be proved to exceed this, so that a small drift raises no alarm."""

CRITICAL_LOSS_RISE = 0.2
"""Nats a token: a task's loss proved to have risen by more is critical, as ``regression.critical_drop`` is for grades.
A fifth of a nat is 22 % more perplexity."""

LOSS_MASTERY = 0.5
"""Success rate of the baseline from which a level counts for the loss: below, it is still being learnt."""

FEWEST = 20
"""Items from which on a mean of differences is near enough to normal."""

CLIPPED_AT = 1.0
"""Nats a token at which the difference of one item is clipped."""

CONFIDENCE = 0.95


class Drop(BaseModel):
    """One comparison with one baseline: overall (family and level None), of a family (level None) or of a level.

    ``effect`` and ``interval`` are the candidate's rate minus the baseline's. ``drop_at_least`` is the lower bound of
    the drop that holds for all comparisons of the verdict together; negative where no drop is proved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    family: str | None
    level: int | None
    n: int
    gains: int
    losses: int
    effect: float
    interval: Interval
    p: float
    p_holm: float = 1.0
    drop_at_least: float
    severity: Severity = "none"


class ScoreDrop(BaseModel):
    """One task of metric loss or judge against one baseline.

    ``before`` and ``after`` are means as measured, ``effect`` and ``interval`` the mean difference of the clipped
    scores, negative where the task is worse. ``drop_at_least`` is as in Drop, in the metric's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    family: str
    metric: Metric
    n: int
    before: float
    after: float
    effect: float
    interval: Interval
    p: float
    p_holm: float = 1.0
    drop_at_least: float = 0.0
    severity: Severity = "none"


class RegressionVerdict(BaseModel):
    """``overall`` is the comparison with the first baseline on all graded items of the test split, None where there are
    none; ``drops`` are all comparisons of graded items, ``scores`` those of tasks with another metric.

    ``smallest_visible_drop`` is what the overall comparison would have found with chance ``power``, at the share
    of discordant items seen and Holm's first step; None where the items are too few for any. ``visible_by_family``
    does so for each family. ``forgotten`` names the families with a proved drop, ``losses`` has the rise of the right
    answers' loss since each baseline. A proved rise is at most a warning, since only lost answers justify a rewind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    severity: Severity
    overall: Drop | None
    drops: tuple[Drop, ...]
    scores: tuple[ScoreDrop, ...] = ()
    forgotten: tuple[str, ...]
    losses: tuple[LossRise, ...] = ()
    smallest_visible_drop: float | None
    visible_by_family: dict[str, float | None]
    power: float
    reason: str


def judge_regression(
    candidate: Evaluation,
    champion: Evaluation,
    best_so_far: Evaluation | None,
    settings: RegressionSettings,
) -> RegressionVerdict:
    """Test the candidate on the test split against the champion, and the best so far where that is another.

    The caller picks the best so far by ``selection_score`` (``ratchet.evaluation.record``), among comparable earlier
    checkpoints. Where the test split is empty, nothing can be proved. Raises NotComparable for records made under other
    conditions.
    """
    baselines = {b.checkpoint_id: b for b in (champion, best_so_far) if b is not None}
    is_empty = not any(in_test_split(item.item_id) for item in candidate.items)
    tables = {
        name: () if is_empty else outcome_table(baseline, candidate, in_test_split)
        for name, baseline in baselines.items()
    }
    scores = {name: score_table(baseline, candidate, in_test_split) for name, baseline in baselines.items()}
    losses = {name: loss_pairs(baseline, candidate) for name, baseline in baselines.items()}
    return judge_outcomes(candidate.checkpoint_id, tables, settings, losses, scores)


def judge_outcomes(
    checkpoint_id: str,
    tables: Mapping[str, OutcomeTable],
    settings: RegressionSettings,
    losses: Mapping[str, LossPairs] | None = None,
    scores: Mapping[str, ScoreTable] | None = None,
) -> RegressionVerdict:
    """The verdict from the paired outcomes and losses since each baseline; the first baseline is the champion."""
    compared = [(name, task) for name, tasks in (scores or {}).items() for task in tasks if _is_compared(task)]
    drops, rises, score_drops = _judged(tables, loss_rises(losses or {}), compared, settings)
    overall = next((drop for drop in drops if drop.family is None), None)
    proved = any(rise.is_proved for rise in rises)
    severities = [*(drop.severity for drop in drops), *(drop.severity for drop in score_drops)]
    severity = _worst([*severities, "warning" if proved else "none"])
    tests = len(drops) + len(rises) + len(score_drops)
    visible = _visible(overall, tests, settings) if overall is not None else None
    of_champion = [d for d in drops if overall and d.baseline == overall.baseline and d.family and d.level is None]
    worse = {drop.family for drop in drops if drop.family and drop.severity != "none"}
    forgotten = tuple(sorted(worse | {drop.family for drop in score_drops if drop.severity != "none"}))
    return RegressionVerdict(
        checkpoint_id=checkpoint_id,
        severity=severity,
        overall=overall,
        drops=drops,
        scores=score_drops,
        forgotten=forgotten,
        losses=tuple(rises),
        smallest_visible_drop=visible,
        visible_by_family={str(d.family): _visible(d, tests, settings) for d in of_champion},
        power=POWER,
        reason=_reason(drops, rises, score_drops, forgotten, visible),
    )


def _is_compared(task: PairedScores) -> bool:
    return task.family != GENERAL and task.n > 0


def _visible(drop: Drop, tests: int, settings: RegressionSettings) -> float | None:
    discordant = max(1, drop.gains + drop.losses) / drop.n
    return smallest_detectable(drop.n, discordant, settings.alpha / tests, POWER)


def _judged(
    tables: Mapping[str, OutcomeTable],
    rises: Sequence[LossRise],
    compared: Sequence[tuple[str, PairedScores]],
    settings: RegressionSettings,
) -> tuple[tuple[Drop, ...], list[LossRise], tuple[ScoreDrop, ...]]:
    """All comparisons under one Holm correction: the drops, the rises of the loss, the tasks of other metrics."""
    cells = [(baseline, *cell) for baseline, table in tables.items() if table for cell in _comparisons(table)]
    share = settings.alpha / max(1, len(cells) + len(rises) + len(compared))
    scores = [_score_drop(baseline, task, share) for baseline, task in compared]
    comparisons: list[Drop | LossRise | ScoreDrop] = [*_drops(cells, share), *rises, *scores]
    corrected = holm([comparison.p for comparison in comparisons])
    judged = [_corrected(comparison, p, settings) for comparison, p in zip(comparisons, corrected, strict=True)]
    return (
        tuple(each for each in judged if isinstance(each, Drop)),
        [each for each in judged if isinstance(each, LossRise)],
        tuple(each for each in judged if isinstance(each, ScoreDrop)),
    )


def _corrected(
    comparison: Drop | LossRise | ScoreDrop, p_holm: float, settings: RegressionSettings
) -> Drop | LossRise | ScoreDrop:
    """The comparison with its p after the correction, and what that proves."""
    if isinstance(comparison, LossRise):
        return comparison.model_copy(update={"p_holm": p_holm, "is_proved": p_holm <= settings.alpha})
    is_loss = isinstance(comparison, ScoreDrop) and comparison.metric == "loss"
    critical = CRITICAL_LOSS_RISE if is_loss else settings.critical_drop
    severity = _severity(p_holm, comparison.drop_at_least, settings.alpha, critical)
    return comparison.model_copy(update={"p_holm": p_holm, "severity": severity})


def _drops(cells: Sequence[tuple[str, str | None, int | None, OutcomeCounts]], share: float) -> list[Drop]:
    """The drops before the correction. ``share`` is the alpha of each lower bound."""
    counts = [count for *_, count in cells]
    gains, losses, n = [c.gains for c in counts], [c.losses for c in counts], [c.n for c in counts]
    worse, least = mcnemar_better(losses, gains), lower_bound(losses, gains, n, share)
    measured = zip(cells, worse, least, difference_intervals(gains, losses, n), strict=True)
    return [
        Drop(
            baseline=baseline,
            family=family,
            level=level,
            **count.model_dump(),
            effect=count.effect,
            interval=interval,
            p=float(p),
            drop_at_least=float(bound),
        )
        for (baseline, family, level, count), p, bound, interval in measured
    ]


def _worse_p(task: PairedScores) -> float:
    """One-sided p of "not worse"; a loss has to have risen by more than LOSS_RISE."""
    margin = LOSS_RISE if task.metric == "loss" else 0.0
    return float(mean_above_p([-d for d in task.differences], margin, BOUNDS[task.metric]))


def _score_drop(baseline: str, task: PairedScores, share: float) -> ScoreDrop:
    bound = BOUNDS[task.metric]
    return ScoreDrop(
        baseline=baseline,
        family=task.family,
        metric=task.metric,
        n=task.n,
        before=task.before,
        after=task.after,
        effect=float(np.clip(task.differences, -bound, bound).mean()),
        interval=mean_interval(task.differences, bound),
        p=_worse_p(task),
        drop_at_least=mean_lower_bound([-d for d in task.differences], share, bound),
    )


def _comparisons(table: OutcomeTable) -> list[tuple[str | None, int | None, OutcomeCounts]]:
    """Overall first, then each family, then each level; a family of one level is not counted twice."""
    families = sorted({cell.family for cell in table})
    by_family = {family: [cell for cell in table if cell.family == family] for family in families}
    comparisons: list[tuple[str | None, int | None, OutcomeCounts]] = [(None, None, total_of(table))]
    if len(families) > 1:
        comparisons += [(family, None, total_of(cells)) for family, cells in by_family.items()]
    for family, cells in by_family.items():
        if len(cells) > 1 or len(families) == 1:
            comparisons += [(family, cell.level, total_of([cell])) for cell in cells]
    return comparisons


def _severity(p_holm: float, drop_at_least: float, alpha: float, critical: float) -> Severity:
    if p_holm > alpha:
        return "none"
    return "critical" if drop_at_least >= critical else "warning"


def _worst(severities: Iterable[Severity]) -> Severity:
    ranks: tuple[Severity, ...] = ("none", "warning", "critical")
    return max(severities, key=ranks.index)


def _reason(
    drops: Sequence[Drop],
    rises: Sequence[LossRise],
    scores: Sequence[ScoreDrop],
    forgotten: Sequence[str],
    visible: float | None,
) -> str:
    sight = _sight(drops, scores, visible)
    worse = [_words(drop) for drop in drops if drop.severity != "none"]
    worse += [_score_words(drop) for drop in scores if drop.severity != "none"]
    worse += [_loss_words(rise) for rise in rises if rise.is_proved]
    if not worse:
        return f"No drop is proved. {sight}"
    lost = f" Forgotten: {', '.join(forgotten)}." if forgotten else ""
    return f"Worse: {'; '.join(worse)}.{lost} {sight}"


def _sight(drops: Sequence[Drop], scores: Sequence[ScoreDrop], visible: float | None) -> str:
    if visible is not None:
        return f"A drop of {visible:.1%} would have been seen with {POWER:.0%}."
    if scores and not drops:
        return f"{sum(drop.n for drop in scores)} paired scores were compared."
    return "With so few items no drop could have been seen."


def _score_words(drop: ScoreDrop) -> str:
    means = (
        f"loss {drop.before:.2f} to {drop.after:.2f} nats a token"
        if drop.metric == "loss"
        else f"preferred over the reference {drop.before:.0%} to {drop.after:.0%}"
    )
    return f"{drop.family} {means} against {drop.baseline} ({drop.n} items, p = {drop.p_holm:.2g} after correction)"


def _loss_words(rise: LossRise) -> str:
    return (
        f"loss of the right answers on learnt levels {rise.before:.3f} to {rise.after:.3f} nats a token against "
        f"{rise.baseline} ({rise.n} items, p = {rise.p_holm:.2g} after correction)"
    )


def _words(drop: Drop) -> str:
    place = "overall" if drop.family is None else drop.family
    if drop.level is not None:
        place = f"{place} level {drop.level}"
    return (
        f"{place} {drop.effect:+.1%} against {drop.baseline} ({drop.gains} gains, {drop.losses} losses on {drop.n} "
        f"items, p = {drop.p_holm:.2g} after correction, a drop of {max(drop.drop_at_least, 0):.1%} at least)"
    )


class LossPairs(BaseModel):
    """Losses of the right answers before and after, item by item, in nats a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: tuple[float, ...]
    after: tuple[float, ...]

    def rises(self) -> Floats:
        """After minus before, each clipped at one nat, shape (items,)."""
        return np.asarray(np.clip(np.array(self.after) - np.array(self.before), -CLIPPED_AT, CLIPPED_AT), np.float64)


class LossRise(BaseModel):
    """``rise`` is the mean over the items, after minus before, with its interval; ``p`` of "at most the margin"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    n: int
    before: float
    after: float
    rise: float
    interval: Interval
    p: float
    p_holm: float = 1.0
    is_proved: bool = False


def loss_pairs(baseline: Evaluation, candidate: Evaluation, mastery: float = LOSS_MASTERY) -> LossPairs:
    """The test split's items of the levels that the baseline had learnt, where both records have the loss."""
    learnt = _learnt(baseline.items, mastery)
    pairs = [
        (one.gold_nll, two.gold_nll)
        for one, two in paired(baseline, candidate)
        if in_test_split(one.item_id) and (one.family, one.level) in learnt
    ]
    known = [(before, after) for before, after in pairs if before is not None and after is not None]
    return LossPairs(before=tuple(before for before, _ in known), after=tuple(after for _, after in known))


def _learnt(items: Sequence[ItemRecord], mastery: float) -> set[tuple[str, int]]:
    rates = level_rates(item for item in items if in_selection_split(item.item_id))
    return {cell for cell, rate in rates.items() if rate.value >= mastery}


def loss_rises(pairs: Mapping[str, LossPairs], margin: float = LOSS_RISE) -> list[LossRise]:
    """A paired, one-sided t-test against each baseline of "the loss has risen by the margin at most"."""
    return [_rise(name, these, margin) for name, these in pairs.items() if len(these.before) >= FEWEST]


def _rise(baseline: str, pairs: LossPairs, margin: float) -> LossRise:
    rises = pairs.rises()
    n, mean = len(rises), float(rises.mean())
    error = float(rises.std(ddof=1)) / np.sqrt(n)
    half = float(scipy.stats.t.isf((1 - CONFIDENCE) / 2, n - 1)) * error
    p = float(scipy.stats.t.sf((mean - margin) / error, n - 1)) if error > 0 else float(mean <= margin)
    return LossRise(
        baseline=baseline,
        n=n,
        before=float(np.mean(pairs.before)),
        after=float(np.mean(pairs.after)),
        rise=mean,
        interval=Interval(low=mean - half, high=mean + half, confidence=CONFIDENCE),
        p=p,
    )
