"""Which levels a checkpoint masters."""

from __future__ import annotations

from ratchet.evaluation.rate import level_rates
from ratchet.evaluation.record import Evaluation

MasteredLevels = dict[str, frozenset[int]]


def mastered_levels(evaluation: Evaluation, threshold: float, fewest_items: int) -> MasteredLevels:
    """Per family with at least one such level: the levels answered at ``threshold`` or better, on enough items.

    For the gate read it off the champion's *eval* record. Read off the confirm record that the gate then tests on,
    levels with a lucky champion would be picked, and an equal challenger would look worse on them.
    """
    mastered: dict[str, set[int]] = {}
    for (family, level), rate in level_rates(evaluation.items).items():
        if rate.n >= fewest_items and rate.value >= threshold:
            mastered.setdefault(family, set()).add(level)
    return {family: frozenset(levels) for family, levels in mastered.items()}
