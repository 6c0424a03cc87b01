"""Paired outcomes of two checkpoints on the same items.

Of graded items it is counted, by family and level, how many a later checkpoint answers right and an earlier one wrong,
or vice versa, which is sufficient for the paired tests of ratchet.stats.paired_tests. Of a task measured by loss or by
an LLM judge the differences of the scores are kept, for those of ratchet.stats.paired_scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.answer_faults import answer_faults
from ratchet.evaluation.record import Evaluation, ItemRecord, Metric, paired

SHORTENED = 1 / 3
"""Share of the earlier answer's tokens below which a later answer counts as shortened."""


class CellOutcomes(BaseModel):
    """One family and level: of ``n`` items, ``gains`` are right only in the later record, ``losses`` only in the
    earlier one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    n: int
    gains: int
    losses: int


class OutcomeCounts(BaseModel):
    """Paired outcomes added up over families and levels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    gains: int
    losses: int

    @property
    def effect(self) -> float:
        """Difference of the success rates; positive if the later checkpoint is better."""
        return (self.gains - self.losses) / self.n if self.n else 0.0

    @property
    def discordant_share(self) -> float:
        """Share of the items on which the two differ."""
        return (self.gains + self.losses) / self.n if self.n else 0.0


OutcomeTable = tuple[CellOutcomes, ...]


class PairedScores(BaseModel):
    """One task of metric loss or judge, on the ``n`` items of which both records have a score.

    ``differences`` are the later scores minus the earlier ones: positive where the later checkpoint is better.
    ``before`` and ``after`` are the means as measured: losses in nats per token, or preferences. ``unscored`` items
    lack a score in one of the records; ``only_before`` of them have one in the earlier record alone, ``only_after`` in
    the later one alone. ``shortened`` later answers have less than a third of the earlier one's tokens;
    ``new_faults`` are empty, endless or repeating where the earlier ones are not, ``mended_faults`` the reverse.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    metric: Metric
    n: int
    unscored: int = 0
    only_before: int = 0
    only_after: int = 0
    before: float
    after: float
    differences: tuple[float, ...]
    shortened: int = 0
    new_faults: int = 0
    mended_faults: int = 0

    @property
    def effect(self) -> float:
        """Mean difference; positive if the later checkpoint is better."""
        return sum(self.differences) / self.n if self.n else 0.0


ScoreTable = tuple[PairedScores, ...]


def score_table(earlier: Evaluation, later: Evaluation, only: Callable[[str], bool] | None = None) -> ScoreTable:
    """The tasks of metric loss or judge, sorted by family, for items whose id passes ``only``.

    Raises NotComparable for records made under different conditions.
    """
    tasks: dict[str, list[tuple[ItemRecord, ItemRecord]]] = defaultdict(list)
    for before, after in paired(earlier, later):
        if before.metric != "accuracy" and (only is None or only(before.item_id)):
            tasks[before.family].append((before, after))
    return tuple(_paired_scores(family, pairs) for family, pairs in sorted(tasks.items()))


def _paired_scores(family: str, pairs: list[tuple[ItemRecord, ItemRecord]]) -> PairedScores:
    metric = pairs[0][0].metric
    scores = [(one.score, two.score) for one, two in pairs]
    known = [(before, after) for before, after in scores if before is not None and after is not None]
    sign, n = (-1.0 if metric == "loss" else 1.0), len(known)
    faulty = [(bool(answer_faults(one)), bool(answer_faults(two))) for one, two in pairs]
    return PairedScores(
        family=family,
        metric=metric,
        n=n,
        unscored=len(pairs) - n,
        only_before=sum(before is not None and after is None for before, after in scores),
        only_after=sum(before is None and after is not None for before, after in scores),
        before=sign * sum(before for before, _ in known) / n if n else 0.0,
        after=sign * sum(after for _, after in known) / n if n else 0.0,
        differences=tuple(after - before for before, after in known),
        shortened=sum(len(two.token_logprobs) < SHORTENED * len(one.token_logprobs) for one, two in pairs),
        new_faults=sum(after and not before for before, after in faulty),
        mended_faults=sum(before and not after for before, after in faulty),
    )


def outcome_table(earlier: Evaluation, later: Evaluation, only: Callable[[str], bool] | None = None) -> OutcomeTable:
    """Paired outcomes of the graded items from ``earlier`` to ``later``, sorted by family and level, for items whose id
    passes ``only``.

    Raises NotComparable for records made under different conditions, EmptyEvaluation if no item of any metric is left.
    """
    items = [pair for pair in paired(earlier, later) if only is None or only(pair[0].item_id)]
    if not items:
        raise EmptyEvaluation(
            f"{earlier.checkpoint_id} and {later.checkpoint_id} have no graded items in common to compare."
        )
    cells: dict[tuple[str, int], list[tuple[bool, bool]]] = defaultdict(list)
    for before, after in items:
        if before.correct is not None and after.correct is not None:
            cells[before.family, before.level].append((before.correct, after.correct))
    return tuple(
        CellOutcomes(
            family=family,
            level=level,
            n=len(pairs),
            gains=sum(is_right and not was_right for was_right, is_right in pairs),
            losses=sum(was_right and not is_right for was_right, is_right in pairs),
        )
        for (family, level), pairs in sorted(cells.items())
    )


def total_of(cells: Iterable[CellOutcomes]) -> OutcomeCounts:
    """The sum over all cells."""
    table = tuple(cells)
    return OutcomeCounts(
        n=sum(c.n for c in table), gains=sum(c.gains for c in table), losses=sum(c.losses for c in table)
    )
