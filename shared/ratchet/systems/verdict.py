"""The values a system works with: the subject it is asked about, and the outcome it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ratchet.events import Event
from ratchet.ledger import Transaction


@dataclass(frozen=True)
class Subject:
    """What a system decides about: ``checkpoint``, ``batch``, ``request``, ``refill`` … and its id."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


def nothing(_tx: Transaction) -> None:
    """The effect of a verdict that changes nothing else."""


@dataclass(frozen=True)
class Verdict:
    """A decision. ``effects`` and ``events`` are committed together with it, under a unique key and a live claim."""

    outcome: str
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    effects: Callable[[Transaction], None] = nothing
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class NotReady:
    """Inputs are missing. Neither a verdict nor a failed attempt: the missing input's event wakes the subject again.

    ``effects`` and ``events`` may ask for what is missing.
    """

    waiting_for: str
    effects: Callable[[Transaction], None] = nothing
    events: tuple[Event, ...] = ()


Outcome = Verdict | NotReady
