"""What the numbers of a verdict fell short of, as sentences: of the regression monitor, of the screen, of the gate.

The numbers are JSON as these systems have stored them with their verdicts. The tests are not run again: where a
sentence says what would have sufficed, it is computed from the stored counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, comb, log2, sqrt
from statistics import NormalDist
from typing import Any

Numbers = Mapping[str, Any]

MOST_ITEMS = 1_000_000
"""Above this a number of items is not worth stating: the gain is too small to be shown."""

EXACT_BELOW = 1_000
"""Answers that differ, up to which the exact test is computed."""

MOST_TOLD = 6
"""Levels or families that are listed one by one."""


def regression_needs(numbers: Numbers) -> Iterator[str]:
    """What was proved to be worse, and by how much."""
    worse = [drop for drop in numbers.get("drops", ()) if drop["severity"] != "none"]
    for drop in worse[:MOST_TOLD]:
        yield (
            f"{_place(drop)} fell by {-100 * drop['effect']:.1f} points against {drop['baseline']} ({drop['gains']} "
            f"gained, {drop['losses']} lost of {drop['n']} items; by {100 * max(0, drop['drop_at_least']):.1f} at "
            "least). A checkpoint without that drop is needed."
        )
    if len(worse) > MOST_TOLD:
        yield f"{len(worse) - MOST_TOLD} more are proved worse; the regression verdict below lists them."
    for task in numbers.get("scores", ()):
        if task["severity"] != "none":
            change = (
                f"its loss rose from {task['before']:.2f} to {task['after']:.2f} nats per token"
                if task["metric"] == "loss"
                else f"it is preferred in {task['after']:.0%}, before in {task['before']:.0%}"
            )
            yield f"Task {task['family']}: {change} against {task['baseline']}, on {task['n']} items."
    for rise in numbers.get("losses", ()):
        if rise["is_proved"]:
            yield (
                f"The loss of the right answers on learnt levels rose from {rise['before']:.3f} to {rise['after']:.3f} "
                f"nats per token against {rise['baseline']}, on {rise['n']} items: a sign of forgetting."
            )


def screen_needs(numbers: Numbers) -> Iterator[str]:
    """How far the eval records were from being worth a challenge."""
    harmed = numbers.get("harmed", ())
    for level in harmed[:MOST_TOLD]:
        yield _harm(level)
    if harmed:
        return
    for screened in numbers.get("targets", ()):
        yield _target_needs(screened["target"], "eval items", must_be_proved=screened.get("decides", True))


def gate_needs(evidence: Numbers) -> Iterator[str]:
    """A sentence for each test of the gate that did not pass."""
    targets = evidence.get("targets", ())
    if not any(target["proved"] for target in targets):
        for target in targets:
            yield _target_needs(target, "items of the confirm suite")
        if not targets:
            yield "The confirm suite has no item that could show a gain: a new one has to be built."
    for proof in (*evidence.get("families", ()), *evidence.get("tasks", ())):
        if not proof["safe"]:
            yield _guard_needs(proof)
    general = evidence.get("general")
    if general and not general["safe"]:
        drift = max(general["drift_at_most"], general["drift"])
        yield (
            f"It may have drifted from what the base model could do by {drift:.2f} nats per token; "
            f"less than {general['margin']:.2f} has to be proved, on {general['n']} items."
        )
    for level in [each for each in evidence.get("levels", ()) if each["harmed"]][:MOST_TOLD]:
        yield _harm(level)
    if not evidence.get("smoke_passed", True):
        yield "The inference server's answers were not those that had been judged (the smoke test failed)."


def _target_needs(target: Numbers, items: str, *, must_be_proved: bool = True) -> str:
    place = f"Task {target['task']}" if target.get("task") else "All graded items together"
    n = target["n"]
    if not n:
        return f"{place}: no item has a score of both, so nothing can be shown."
    if target["metric"] != "accuracy":
        return f"{place}: {_score_needs(target, items)}"
    gains, losses = int(target["gains"] or 0), int(target["losses"] or 0)
    told = (
        f"{place}: {gains} gained and {losses} lost on {n} {items} ({100 * target['effect']:+.1f} points), "
        f"p = {target['p']:.2g} where {target['alpha']:.2g} is allowed."
    )
    if not must_be_proved:
        return f"{told} So few items only have to show no net loss."
    return f"{told} {_graded_needs(gains, losses, n, target['alpha'])}"


def _graded_needs(gains: int, losses: int, n: int, alpha: float) -> str:
    differing = gains + losses
    wanted = gains_needed(differing, alpha)
    if wanted is None:
        least = ceil(-log2(alpha))
        return f"Only {differing} answers differ; even without a loss {least} gains are needed."
    net = 2 * wanted - differing
    told = (
        f"With as many answers that differ, {wanted} gained against {differing - wanted} lost would do, a gain of "
        f"{100 * net / n:.1f} points"
    )
    more = items_needed(gains, losses, n, alpha)
    return f"{told}; the gain that was seen would do on about {more:,} items." if more is not None else f"{told}."


def _score_needs(target: Numbers, items: str) -> str:
    is_loss = target["metric"] == "loss"
    before, after, n = target.get("before") or 0.0, target.get("after") or 0.0, target["n"]
    means = f"loss {before:.3f} → {after:.3f} nats per token" if is_loss else f"preferred {before:.0%} → {after:.0%}"
    told = f"{means} on {n} {items}, p = {target['p']:.2g} where {target['alpha']:.2g} is allowed."
    effect, factor = target["effect"], _stretch(target["p"], target["alpha"])
    if effect <= 0 or factor is None:
        return f"{told} It is not better."
    wanted = effect * factor
    change = f"a fall of about {wanted:.3f} nats per token" if is_loss else f"about {100 * wanted:+.0f} points"
    return f"{told} {change.capitalize()} would do, or the same change on about {ceil(n * factor**2):,} items."


def _guard_needs(proof: Numbers) -> str:
    name, n = proof["family"], proof["n"]
    if not n:
        return f"{name}: no item has a score of both, so nothing can be shown about it."
    is_loss = proof.get("metric") == "loss"
    worst, margin = -proof["lower_bound"], proof["margin"]
    if proof["rule"] == "no_net_loss":
        lost = f"{proof['losses']} lost and {proof['gains']} gained" if "losses" in proof else "it is worse"
        return f"{name}: {lost} on {n} items. With so few, no net loss is allowed."
    unit = f"{worst:.3f} nats per token" if is_loss else f"{100 * worst:.1f} points"
    limit = f"{margin:.3f}" if is_loss else f"{100 * margin:.1f}"
    needed = proof.get("items_needed")
    few = f" The full test needs {needed:,} items; there are {n:,}." if needed and needed > n else ""
    return f"{name} may be worse by {unit}; less than {limit} has to be proved, on {n:,} items.{few}"


def _harm(level: Numbers) -> str:
    counts = f"{level['losses']} lost and {level['gains']} gained of {level['n']} items"
    if level.get("of") == "answers":
        return (
            f"More answers of {level['family']} are empty, endless or repeating: {level['losses']} newly, "
            f"{level['gains']} no longer, of {level['n']}."
        )
    return f"{level['family']} level {level['level']} is proved worse: {counts}."


def _place(drop: Numbers) -> str:
    if drop["family"] is None:
        return "All graded items together"
    return drop["family"] if drop["level"] is None else f"{drop['family']} level {drop['level']}"


def gains_needed(differing: int, alpha: float) -> int | None:
    """The fewest gains among that many answers that differ which McNemar's exact one-sided test accepts at ``alpha``;
    None where not even gains alone do."""
    if differing >= EXACT_BELOW:
        return _gains_needed_of_many(differing, alpha)
    limit, tail = alpha * 2.0**differing, 0
    for gains in range(differing, -1, -1):
        tail += comb(differing, gains)
        if tail > limit:
            return gains + 1 if gains < differing else None
    return 0


def _gains_needed_of_many(differing: int, alpha: float) -> int:
    """The same by the normal distribution, with a correction for continuity."""
    return ceil(differing / 2 + NormalDist().inv_cdf(1 - alpha) * sqrt(differing) / 2 + 0.5)


def items_needed(gains: int, losses: int, n: int, alpha: float) -> int | None:
    """About how many items would show the same gain, by the normal distribution; None where there is none."""
    if gains <= losses:
        return None
    seen = (gains - losses) / sqrt(gains + losses)
    wanted = ceil(n * (NormalDist().inv_cdf(1 - alpha) / seen) ** 2)
    return wanted if n < wanted <= MOST_ITEMS else None


def _stretch(p: float, alpha: float) -> float | None:
    """By how much an effect of this p would have to be larger to be accepted; None where it has the wrong sign."""
    if not 0 < p < 0.5:
        return None
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha) / normal.inv_cdf(1 - p)
