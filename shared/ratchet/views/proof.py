"""The gate's evidence for or against a checkpoint, as sentences and numbers for people.

The gate stores it with a challenge and a deployment. It is read leniently, since earlier versions stored less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """What had to become better. ``task`` is None for all graded items together."""

    task: str | None
    result: str
    change: str
    interval: str
    p: float | None
    alpha: float | None
    is_proved: bool


@dataclass(frozen=True)
class Guard:
    """What must not become worse by ``margin`` or more. ``needed`` items would have tested it at full power."""

    name: str
    items: int
    change: str
    at_worst: str
    margin: str
    needed: int | None
    is_safe: bool


@dataclass(frozen=True)
class Level:
    """A level on which some answers changed."""

    name: str
    items: int
    gains: int
    losses: int
    is_harmed: bool


@dataclass(frozen=True)
class Proof:
    """``levels`` has those that changed, of ``levels_in_all``. ``k`` counts the challenges of the champion."""

    k: int | None
    targets: Sequence[Target]
    guards: Sequence[Guard]
    levels: Sequence[Level]
    levels_in_all: int
    general: str | None


def proof_of(numbers: Numbers | None) -> Proof | None:
    """The proof in the numbers of a challenge or a deployment; None where there is none."""
    evidence = (numbers or {}).get("evidence")
    if not isinstance(evidence, Mapping) or not evidence.get("targets"):
        return None
    levels = [_level(each) for each in evidence.get("levels") or ()]
    return Proof(
        k=evidence.get("k"),
        targets=[_target(each) for each in evidence["targets"]],
        guards=[_guard(each) for name in ("families", "tasks") for each in evidence.get(name) or ()],
        levels=[level for level in levels if level.gains or level.losses],
        levels_in_all=len(levels),
        general=_general(evidence.get("general")),
    )


def _target(numbers: Numbers) -> Target:
    metric = str(numbers.get("metric", "accuracy"))
    return Target(
        task=numbers.get("task"),
        result=_result(numbers, metric),
        change=_with_unit(numbers.get("effect"), metric),
        interval=_interval(numbers.get("interval"), metric),
        p=numbers.get("p"),
        alpha=numbers.get("alpha"),
        is_proved=bool(numbers.get("proved")),
    )


def _interval(bounds: Numbers | None, metric: str) -> str:
    if not bounds or bounds.get("low") is None or bounds.get("high") is None:
        return ""
    low, high = float(bounds["low"]), float(bounds["high"])
    if metric == "loss":
        return f"{-high:+.3f} to {-low:+.3f}"  # a higher score is a lower loss
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _result(numbers: Numbers, metric: str) -> str:
    n = f"{numbers.get('n', 0):,} held-out items"
    if metric == "accuracy":
        return f"{numbers.get('gains') or 0:,} gains and {numbers.get('losses') or 0:,} losses on {n}"
    before, after = numbers.get("before"), numbers.get("after")
    if before is None or after is None:
        return f"{metric} on {n}"
    if metric == "loss":
        return f"loss {before:.3f} → {after:.3f} nats per token on {n}"
    return f"preferred {before:.0%} → {after:.0%} on {n}"


def _guard(numbers: Numbers) -> Guard:
    metric = str(numbers.get("metric", "accuracy"))
    is_enough = numbers.get("enough", True)
    return Guard(
        name=str(numbers.get("family", "")),
        items=int(numbers.get("n") or 0),
        change=_with_unit(numbers.get("effect"), metric),
        at_worst=_with_unit(numbers.get("lower_bound"), metric),
        margin=_with_unit(numbers.get("margin"), metric).lstrip("+-"),
        needed=None if is_enough else numbers.get("items_needed"),
        is_safe=bool(numbers.get("safe")),
    )


def _level(numbers: Numbers) -> Level:
    name = f"{numbers.get('family', '')} {numbers.get('level', '')}"
    return Level(
        name=f"{name} (form of the answers)" if numbers.get("of") == "answers" else name,
        items=int(numbers.get("n") or 0),
        gains=int(numbers.get("gains") or 0),
        losses=int(numbers.get("losses") or 0),
        is_harmed=bool(numbers.get("harmed")),
    )


def _general(numbers: Numbers | None) -> str | None:
    if not numbers:
        return None
    verdict = "kept" if numbers.get("safe") else "not proved to be kept"
    return (
        f"What the base model could do is {verdict}: drift {numbers.get('drift', 0.0):.3f} nats per token from its own "
        f"answers, at most {numbers.get('drift_at_most', 0.0):.3f} (allowed {numbers.get('margin', 0.0):.3f}), on "
        f"{numbers.get('n', 0):,} items."
    )


def _with_unit(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{-value:+.3f} nats" if metric == "loss" else f"{100 * value:+.1f} points"
