"""Three rules of promotion over one history: ours, the prior system's, and an unpaired z-test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ratchet.gate.decision import Promote, conclude, weigh
from ratchet.gate.screen import screen_outcomes
from ratchet.settings.judging import GateSettings

from benchmarks.gate.world import History, World


@dataclass(frozen=True)
class Outcome:
    """Which challenge and which checkpoint (from 1) was promoted, None if none was."""

    challenge: int | None
    checkpoint: int | None
    challenges: int


def gate(history: History, settings: GateSettings, challenges: int) -> Outcome:
    """Every checkpoint is screened; those worth it challenge, until one is promoted or the challenges are used up."""
    k = 0
    for checkpoint in range(len(history.eval_gains)):
        seen = screen_outcomes(history.eval_table(checkpoint), "champion", "challenger", settings)
        if not seen.is_worth_opening:
            continue
        k += 1
        evidence = weigh(
            history.confirm_table(checkpoint),
            champion="champion",
            challenger="challenger",
            k=k,
            mastered=history.world.mastered,
            settings=settings,
            smoke_passed=True,
        )
        if isinstance(conclude(evidence), Promote):
            return Outcome(k, checkpoint + 1, k)
        if k == challenges:
            break
    return Outcome(None, None, k)


def prior(world: World, checkpoints: int, rng: np.random.Generator) -> Outcome:
    """Highest composite of loss, accuracy and speed wins, each checkpoint on its own 50 random items.

    Loss is taken as twice the error rate, latency as lognormal around 80 ms (what else runs on the card).
    """
    before = np.mean([cell.accuracy for cell in world.cells])
    rate = np.concatenate([[before], np.full(checkpoints, before + world.effect)])
    accuracy = rng.binomial(50, rate) / 50
    latency = 80 * np.exp(0.3 * rng.standard_normal(checkpoints + 1))
    composite = 0.4 / (1 + 2 * (1 - accuracy)) + 0.4 * accuracy + 0.2 * np.minimum(1, 100 / latency)
    return _first(composite[1:] > composite[0])


def unpaired(world: World, checkpoints: int, rng: np.random.Generator) -> Outcome:
    """One-sided z-test at 5 %, champion and checkpoint on separate samples of the confirm suite's size."""
    n = world.confirm_items * len(world.cells)
    before = np.mean([cell.accuracy for cell in world.cells])
    old = rng.binomial(n, before) / n
    new = rng.binomial(n, before + world.effect, size=checkpoints) / n
    pooled = (old + new) / 2
    return _first((new - old) / np.sqrt(2 * pooled * (1 - pooled) / n) > 1.6449)


def _first(promoted: np.ndarray) -> Outcome:
    if not promoted.any():
        return Outcome(None, None, len(promoted))
    first = int(promoted.argmax()) + 1
    return Outcome(first, first, first)
