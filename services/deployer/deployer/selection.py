"""Which checkpoint may challenge the champion: a pure rule over the judges' verdicts.

The candidate is the best-ranked checkpoint that is newer than the champion, not blocked, and cleared by every judge.
Older checkpoints than the candidate are superseded; newer ones wait for the decision on it. A challenge that has been
opened is decided before another one begins: otherwise no checkpoint would ever be deployed where they arrive faster
than a server loads one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """An evaluated checkpoint without a deployment verdict, and what is known about it; None means not known yet.

    ``is_kept`` is False once retention has deleted its files. ``given_up`` is the pool on which testing has
    dead-lettered it: it then waits for an operator, and no other contender waits for it. ``over_budget`` describes the
    budget that it exceeds. ``judges`` are those, of plug-ins too, whose verdict is missing. ``is_challenging`` says
    that its challenge of the present champion is open.
    """

    id: str
    ordinal: int
    score: float | None
    severity: str | None
    calibrated: bool
    blocked: str | None
    is_kept: bool = True
    given_up: str | None = None
    over_budget: str | None = None
    judges: tuple[str, ...] = ()
    is_challenging: bool = False


@dataclass(frozen=True)
class Settle:
    """A verdict without a challenge."""

    outcome: str
    reason: str


@dataclass(frozen=True)
class Wait:
    """No decision is possible yet."""

    waiting_for: str


@dataclass(frozen=True)
class Challenge:
    """The contender is the candidate, and may challenge the champion."""


Ruling = Settle | Wait | Challenge


def rule(
    contenders: Iterable[Contender], champion_id: str, champion_ordinal: int, held: str | None
) -> dict[str, Ruling]:
    """A ruling for each contender, in no particular order. ``held`` is what every challenge has to wait for."""
    field = list(contenders)
    rulings = {contender.id: _ruling_alone(contender, champion_id, champion_ordinal) for contender in field}
    eligible = [contender for contender in field if isinstance(rulings[contender.id], Challenge)]
    if not eligible:
        return rulings
    best = max(eligible, key=_turn)
    for contender in eligible:
        rulings[contender.id] = _ruling_against(contender, best, held)
    return rulings


def _turn(contender: Contender) -> tuple[bool, float, int]:
    """Who comes first, as the largest key: an open challenge, then the rank, then the newest."""
    return contender.is_challenging, contender.score or 0.0, contender.ordinal


def _ruling_alone(contender: Contender, champion_id: str, champion_ordinal: int) -> Ruling:
    if contender.blocked is not None:
        return Settle(
            "blocked", f"its weights are blocked: {contender.blocked}; `ratchet deploy unblock` allows them again"
        )
    if contender.ordinal <= champion_ordinal:
        return Settle("superseded", f"the champion {champion_id} is newer")
    if not contender.is_kept:
        return Settle("superseded", "newer checkpoints have taken its place on disk")
    if contender.severity not in (None, "none"):
        return Settle("refused", f"the regression monitor reports {contender.severity}")
    if contender.over_budget is not None:
        return Settle("refused", f"it is over budget: {contender.over_budget}")
    if contender.given_up is not None:
        return Wait(f"`ratchet dead retry`: testing gave up on its {contender.given_up} record")
    # The records of these three are needed below, so they are required even before their judges have registered.
    records = {
        "regression": contender.severity is not None,
        "comparison": contender.score is not None,
        "calibration": contender.calibrated,
    }
    missing = dict.fromkeys([*(name for name, is_there in records.items() if not is_there), *contender.judges])
    return Wait(" and ".join(missing)) if missing else Challenge()


def _ruling_against(contender: Contender, best: Contender, held: str | None) -> Ruling:
    if contender.id != best.id and best.is_challenging:
        return Wait(f"the decision on {best.id}, whose challenge is open")
    if contender.ordinal < best.ordinal:
        return Settle("superseded", f"{best.id} is newer and ranks at least as high")
    if contender.id != best.id:
        return Wait(f"the decision on {best.id}, which ranks higher")
    return Challenge() if held is None else Wait(held)
