"""What the view shows, as values. Drawing knows nothing of the ledger, and reading nothing of the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field

from ratchet.evaluation.preview import Preview
from ratchet.evaluation.record import LevelRates, Rate


@dataclass(frozen=True)
class Queue:
    """Depth in examples against its marks, and batches by state."""

    depth: int
    low_water: int
    high_water: int
    batches: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0


@dataclass(frozen=True)
class Training:
    """The running segment, as the trainer tells of it. ``done`` and ``total`` count the batch's examples."""

    state: str
    batch_id: str | None = None
    origin: str = ""
    done: int = 0
    total: int = 0
    step: int | None = None
    loss: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True)
class Look:
    """One checkpoint as the view shows it. ``outcomes`` is the verdict of each system that has given one.

    ``verdicts_wanted`` names the systems that give one on every checkpoint.
    """

    id: str
    ordinal: int
    step: int
    created_at: float
    state: str = "saved"
    loss: float | None = None
    overall: Rate | None = None
    levels: LevelRates = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    verdicts_wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Live:
    """What is deployed and why. Ordinals of checkpoints; ``actual`` is what the server last said."""

    desired: int
    actual: int | None
    reason: str
    since_at: float
    proved: bool = True
    frozen_reason: str | None = None
    deployments: int = 0


@dataclass(frozen=True)
class Happening:
    """One line of what happened: a verdict, an event, a deployment."""

    at: float
    who: str
    text: str
    kind: str = "verdict"


@dataclass(frozen=True)
class Busy:
    """A subject that a system works on right now."""

    system: str
    subject: str
    since_at: float
    note: str


@dataclass(frozen=True)
class Scene:
    """Everything at one moment of the ledger. ``previews`` are the newest, the newest last.

    ``hosts`` has the number of workers that were seen lately, by machine. ``warnings`` are sentences about what needs
    the user's attention, the most urgent first; each stays the same word for word while its cause does.
    """

    at: float
    queue: Queue
    training: Training
    checkpoints: tuple[Look, ...]
    checkpoint_count: int
    live: Live | None
    happenings: tuple[Happening, ...]
    busy: tuple[Busy, ...]
    workers: dict[str, str]
    dead: int
    mix: dict[str, float] = field(default_factory=dict)
    title: str = ""
    previews: tuple[Preview, ...] = ()
    hosts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
