"""Is a checkpoint worse than the live champion, or than the best so far?

Both baselines were picked for their scores, the best so far among many. So they are picked on one half of the eval
items and the checkpoint is tested against them on the other half (``ratchet.evaluation.halves``); picked and tested on
the same items, equal checkpoints would soon look worse every third time. Every comparison, with either baseline,
overall, by family and by level, is one hypothesis of one Holm correction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.flips import Count, FlipTable, added, flip_table
from ratchet.evaluation.halves import is_testing
from ratchet.evaluation.record import Evaluation
from ratchet.settings.regression import RegressionSettings
from ratchet.stats.difference import difference_intervals, upper_bound
from ratchet.stats.holm import holm
from ratchet.stats.interval import Interval
from ratchet.stats.mcnemar import mcnemar_better
from ratchet.stats.power import smallest_detectable

Severity = Literal["none", "warning", "critical"]


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
    p_holm: float
    drop_at_least: float
    severity: Severity


class RegressionVerdict(BaseModel):
    """``overall`` is the comparison with the first baseline on all testing items, ``drops`` all comparisons.

    ``smallest_visible_drop`` is what the overall comparison would have found with chance ``power``, at the flips
    seen and Holm's first step; None where the items are too few for any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    severity: Severity
    overall: Drop
    drops: tuple[Drop, ...]
    forgotten: tuple[str, ...]
    smallest_visible_drop: float | None
    power: float
    reason: str


def judge_regression(
    candidate: Evaluation,
    champion: Evaluation,
    best_so_far: Evaluation | None,
    settings: RegressionSettings,
) -> RegressionVerdict:
    """Test the candidate on the testing half against the champion, and the best so far where that is another.

    The caller picks the best so far by ``choosing_score`` (``ratchet.evaluation.halves``), among comparable earlier
    checkpoints. Raises NotComparable for records made under other conditions and EmptyEvaluation where the testing
    half is empty.
    """
    baselines = {b.checkpoint_id: b for b in (champion, best_so_far) if b is not None}
    tables = {name: flip_table(baseline, candidate, is_testing) for name, baseline in baselines.items()}
    return judge_flips(candidate.checkpoint_id, tables, settings)


def judge_flips(checkpoint_id: str, tables: Mapping[str, FlipTable], settings: RegressionSettings) -> RegressionVerdict:
    """The verdict from the flips since each baseline; the first baseline is the champion."""
    drops = _drops(tables, settings)
    overall = drops[0]
    severity = _worst(drop.severity for drop in drops)
    visible = smallest_detectable(
        overall.n,
        max(1, overall.gains + overall.losses) / overall.n,
        settings.alpha / len(drops),
        settings.power,
    )
    return RegressionVerdict(
        checkpoint_id=checkpoint_id,
        severity=severity,
        overall=overall,
        drops=drops,
        forgotten=tuple(sorted({d.family for d in drops if d.family and d.severity != "none"})),
        smallest_visible_drop=visible,
        power=settings.power,
        reason=_reason(drops, severity, visible, settings.power),
    )


def _drops(tables: Mapping[str, FlipTable], settings: RegressionSettings) -> tuple[Drop, ...]:
    cells = [(baseline, *cell) for baseline, table in tables.items() for cell in _comparisons(table)]
    counts = [count for *_, count in cells]
    gains, losses, n = [c.gains for c in counts], [c.losses for c in counts], [c.n for c in counts]
    raw = [float(p) for p in mcnemar_better(losses, gains)]
    corrected = holm(raw)
    least = [-float(bound) for bound in upper_bound(gains, losses, n, settings.alpha / len(cells))]
    intervals = difference_intervals(gains, losses, n)
    return tuple(
        Drop(
            baseline=baseline,
            family=family,
            level=level,
            **count.model_dump(),
            effect=count.effect,
            interval=intervals[i],
            p=raw[i],
            p_holm=corrected[i],
            drop_at_least=least[i],
            severity=_severity(corrected[i], least[i], settings),
        )
        for i, (baseline, family, level, count) in enumerate(cells)
    )


def _comparisons(table: FlipTable) -> list[tuple[str | None, int | None, Count]]:
    """Overall first, then each family, then each level; a family of one level is not counted twice."""
    families = sorted({cell.family for cell in table})
    by_family = {family: [cell for cell in table if cell.family == family] for family in families}
    comparisons: list[tuple[str | None, int | None, Count]] = [(None, None, added(table))]
    if len(families) > 1:
        comparisons += [(family, None, added(cells)) for family, cells in by_family.items()]
    for family, cells in by_family.items():
        if len(cells) > 1 or len(families) == 1:
            comparisons += [(family, cell.level, added([cell])) for cell in cells]
    return comparisons


def _severity(p_holm: float, drop_at_least: float, settings: RegressionSettings) -> Severity:
    if p_holm > settings.alpha:
        return "none"
    return "critical" if drop_at_least >= settings.critical_drop else "warning"


def _worst(severities: Iterable[Severity]) -> Severity:
    ranks: tuple[Severity, ...] = ("none", "warning", "critical")
    return max(severities, key=ranks.index)


def _reason(drops: tuple[Drop, ...], severity: Severity, visible: float | None, power: float) -> str:
    sight = (
        f"A drop of {visible:.1%} would have been seen with {power:.0%}."
        if visible is not None
        else "With so few items no drop could have been seen."
    )
    if severity == "none":
        return f"No drop is proved. {sight}"
    worse = "; ".join(_words(drop) for drop in drops if drop.severity != "none")
    return f"Worse: {worse}. {sight}"


def _words(drop: Drop) -> str:
    place = "overall" if drop.family is None else drop.family
    if drop.level is not None:
        place = f"{place} level {drop.level}"
    return (
        f"{place} {drop.effect:+.1%} against {drop.baseline} ({drop.gains} gains, {drop.losses} losses on {drop.n} "
        f"items, p = {drop.p_holm:.2g} after correction, a drop of {max(drop.drop_at_least, 0):.1%} at least)"
    )
