"""The declaration of a system. Queue, consumer group, worker, sweep, dead letters and docs are derived from it.

A system is one file that declares ``SYSTEM`` and defines its functions; docs/extending.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from ratchet.events import Event
from ratchet.ledger import Ledger
from ratchet.ledger.tables import WorkerRow
from ratchet.settings import Section, Settings
from ratchet.settings.control import Role
from ratchet.systems.claims import Subject
from ratchet.systems.work import Outcome, Work

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore

Find = Callable[[Session, Settings], Sequence[Subject]]
Do = Callable[[Work], Outcome]
Check = Callable[[Settings, Ledger, "ArtifactStore"], bool]


@dataclass(frozen=True)
class Lane:
    """One slot of a system: which subjects it finds, and how it decides. A lane works on one subject at a time.

    ``find`` lists the subjects that may lack a verdict, the most urgent first; the controller drops those that have
    one, are dead, or are claimed. ``do`` is level-triggered: it must reach the same outcome regardless of what woke it.
    ``step_s`` is the longest time between two progress reports.

    ``check`` is called before a subject is claimed, and checks what all subjects depend on. It raises TransientError if
    the lane has to wait, and returns True if it has repaired something, so that ``find`` may find more. ``reconciled``
    names kinds of subjects that are repeatedly brought to a desired state and never decided; they never become dead
    letters. Raises TypeError for a field that should be a function and is not.
    """

    name: str
    consumes: tuple[type[Event], ...]
    find: Find
    do: Do
    step_s: float = 90.0
    check: Check | None = None
    reconciled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wanted = {"find": self.find, "do": self.do, **({"check": self.check} if self.check is not None else {})}
        for name, function in wanted.items():
            if not callable(function):
                raise TypeError(f"{name} of the lane {self.name!r} is {function!r}, which is not a function")


@dataclass(frozen=True)
class System:
    """One of the systems. ``preload`` names modules of its model children; empty means it needs no torch.

    ``order`` is its position in lists. ``per_checkpoint``: it gives a verdict on every checkpoint, which a complete
    cycle requires. ``is_judge``: the deployment gate requires that verdict. ``pending`` names the subjects that wait
    for the system, for metrics and alerts (a key of ``ratchet.ledger.pending.QUERIES``). ``metrics`` may name a
    ``module:callable`` that creates a Prometheus collector from the settings, for metrics that only its worker exports.
    ``vram_gb`` is the GPU memory that the compose files give its models.

    ``settings`` is the type of the system's settings section, which has the system's name: ``[name]`` in the file,
    ``RATCHET_NAME__FIELD`` in the environment, ``work.settings.section(MySettings)`` in its functions. Such a system
    must be in a module of its own name, so that its section is found without importing the others.
    """

    name: str
    host: Role
    purpose: str
    emits: tuple[type[Event], ...]
    sweep_s: float
    lanes: tuple[Lane, ...]
    preload: tuple[str, ...] = ()
    order: int = 100
    per_checkpoint: bool = False
    is_judge: bool = False
    pending: str | None = None
    metrics: str | None = None
    vram_gb: int = 4
    settings: type[Section] | None = None

    def __post_init__(self) -> None:
        if self.settings is not None and not (isinstance(self.settings, type) and issubclass(self.settings, Section)):
            raise TypeError(f"settings of {self.name!r} is {self.settings!r}, which is not a subclass of Section")
        if self.settings is not None and self.name in Settings.model_fields:
            raise TypeError(f"the section [{self.name}] belongs to Ratchet: give the system another name")

    @property
    def queue(self) -> str:
        """Name of its Celery queue and task, such as ``3090.testing``."""
        return f"{self.host}.{self.name}"

    @property
    def needs_gpu(self) -> bool:
        """Whether it runs models, and so needs torch."""
        return bool(self.preload)

    @property
    def consumes(self) -> tuple[type[Event], ...]:
        """All events that wake any of its lanes, each once."""
        return tuple(dict.fromkeys(event for lane in self.lanes for event in lane.consumes))

    @property
    def reconciled(self) -> frozenset[str]:
        """Kinds of subjects that are reconciled, over all lanes."""
        return frozenset(kind for lane in self.lanes for kind in lane.reconciled)

    def lane(self, name: str) -> Lane:
        return next(lane for lane in self.lanes if lane.name == name)

    def lanes_consuming(self, event: type[Event]) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if event in lane.consumes)


@dataclass(frozen=True)
class Declaration:
    """What other hosts need to know about a system. Its worker registers it; the fields are as in System.

    ``consumes`` and ``emits`` are names of events. They and ``purpose`` are empty where an older worker registered it.
    """

    name: str
    order: int
    per_checkpoint: bool
    is_judge: bool
    pending: str | None
    purpose: str = ""
    consumes: tuple[str, ...] = ()
    emits: tuple[str, ...] = ()

    @classmethod
    def of(cls, system: System) -> Declaration:
        return cls(
            system.name,
            system.order,
            system.per_checkpoint,
            system.is_judge,
            system.pending,
            system.purpose,
            tuple(event.name for event in system.consumes),
            tuple(event.name for event in system.emits),
        )

    @classmethod
    def read(cls, row: WorkerRow) -> Declaration:
        """The declaration that a worker has registered. A field that an older worker did not know has its default."""
        values = row.declaration
        return cls(
            name=row.system,
            order=int(values.get("order", 100)),
            per_checkpoint=bool(values.get("per_checkpoint", False)),
            is_judge=bool(values.get("is_judge", False)),
            pending=values.get("pending"),
            purpose=str(values.get("purpose", "")),
            consumes=tuple(values.get("consumes", ())),
            emits=tuple(values.get("emits", ())),
        )
