"""Where the most is being learnt: levels are sampled by their expected learning progress.

What a level's success rate may gain is guessed first and then measured. The guess is *readiness* (how often the level
below is right; 1 for the first) times *room* (how often this one is wrong): nothing is expected of a level whose
ground is not laid, nor of one that is known. The measurement is the change from one probe to the next, of either
sign, as in Matiisen et al., Teacher-Student Curriculum Learning (2017): a level that is being forgotten is taught
again, and one on which teaching shows no effect makes way. The change that chance alone explains, one standard error,
is taken off.
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

from ratchet.evaluation.record import Rate

from datagen.arms.arm import Standing
from datagen.mix import Draft, Drafted, Level, normalised

_NOTHING = Rate(correct=0, n=0)


class Adaptive:
    """Weight is expected progress, but ``replay_share`` of all goes to the levels reached, alike, against
    forgetting."""

    name = "adaptive"
    purpose = "Levels get weight by the learning progress expected of them; those reached are replayed."

    def draft(self, standing: Standing) -> Draft:
        expected = {cell: _expected(standing, cell) for cell in standing.levels}
        seeking = normalised(expected)
        reached = [cell for cell in standing.levels if expected[cell] > 0 or _latest(standing, cell).correct]
        replay = standing.settings.replay_share
        return {
            cell: Drafted(
                (1 - replay) * seeking[cell] + replay / len(reached),
                "progress",
                f"{100 * expected[cell]:.0f} points of progress expected",
            )
            for cell in reached
        }


def _expected(standing: Standing, cell: Level) -> float:
    """Mean of the guess and of the measured changes, each counted once."""
    family, level = cell
    below = max((other for other in standing.families[family] if other < level), default=None)
    readiness = 1.0 if below is None else _value(_latest(standing, (family, below)))
    guess = readiness * (1 - _value(_latest(standing, cell)))
    changes = [
        _beyond_chance(before[cell], after[cell])
        for before, after in pairwise(standing.history)
        if cell in before and cell in after
    ]
    return (guess + sum(changes)) / (1 + len(changes))


def _latest(standing: Standing, cell: Level) -> Rate:
    return standing.history[-1].get(cell, _NOTHING) if standing.history else _NOTHING


def _value(rate: Rate) -> float:
    return rate.value if rate.n else 0.0


def _beyond_chance(before: Rate, after: Rate) -> float:
    """The size of a change of the rate, less one standard error (Agresti and Caffo's, with one item added to each)."""
    error = sqrt(sum(_variance(rate) for rate in (before, after)))
    return max(0.0, abs(after.value - before.value) - error)


def _variance(rate: Rate) -> float:
    smoothed = (rate.correct + 1) / (rate.n + 2)
    return smoothed * (1 - smoothed) / (rate.n + 2)
