"""What a system's function gets and what it returns: its work on one claimed subject, and the outcome.

How subjects are found and claimed, and how outcomes are committed, is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.orm import Session

from ratchet.errors import ClaimLost, Stopping
from ratchet.events import Event
from ratchet.leases.gpus import GpuLimit, acquire_share, gpu_limit
from ratchet.ledger import Ledger, Transaction
from ratchet.settings import Settings
from ratchet.systems import claims
from ratchet.systems.claims import Claim, Pulse, Subject

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore


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


@dataclass(frozen=True)
class Reconciled:
    """What the subject stands for is as desired. The subject gets no verdict, since it is looked at again and again."""

    effects: Callable[[Transaction], None] = nothing
    events: tuple[Event, ...] = ()


Outcome = Verdict | NotReady | Reconciled

GPU_LIMITED = "ratchet.inference.gpu_limit:run"
GPU_WAIT_S = 600.0
"""After that the claim goes back, and the subject waits with the others."""


class Children(Protocol):
    """Runs a function of a torch-using module in a child process (see ChildRunner)."""

    def run(
        self,
        target: str,
        spec: dict[str, Any],
        *,
        on_progress: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        stall_s: float,
        log_path: Path,
        grace_s: Callable[[], float],
    ) -> dict[str, Any]: ...


@dataclass
class Work:
    """One subject under one claim. ``folder`` belongs to this claim's token alone and is removed afterwards."""

    subject: Subject
    claim: Claim
    cause: str | None
    settings: Settings
    ledger: Ledger
    artifacts: ArtifactStore
    children: Children
    folder: Path
    log_path: Path
    stop: threading.Event
    step_s: float
    pulse: Pulse = field(default_factory=Pulse)

    def read(self) -> AbstractContextManager[Session]:
        """A consistent reading session on the ledger."""
        return self.ledger.read()

    def progress(self, note: str = "") -> None:
        """Say that the work moves, and what it is at.

        Raises Stopping once the worker is asked to stop, and ClaimLost once another worker has taken over.
        """
        self.pulse.beat(note)
        if self.pulse.lost:
            raise ClaimLost(f"{self.claim.system} lost {self.subject} while working on it.")
        if self.stop.is_set():
            raise Stopping(f"{self.claim.system} stops at {self.subject}")

    def child(
        self,
        target: str,
        spec: Mapping[str, Any],
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        should_end: Callable[[], bool] = lambda: False,
        cards: int = 1,
    ) -> dict[str, Any]:
        """Run ``module:function`` with a JSON spec in a child process and return its JSON result.

        ``should_end`` asks it, as a stop of the worker does, to return what it has (SIGTERM).

        Where there is a GPU, the child waits for the system's share of the memory of so many ``cards`` and is held to
        it. Raises ChildFailed when it raises, dies or stalls, SettingsError where it finds a setting wrong, and
        Stopping or ClaimLost as ``progress`` does.
        """
        with self._gpus(cards) as found:
            if found is not None:
                spec = {"target": target, "spec": dict(spec), "gpu_limit": found}
                target = GPU_LIMITED
            return self._run_child(target, spec, on_progress, should_end)

    @contextmanager
    def _gpus(self, cards: int) -> Iterator[GpuLimit | None]:
        """Lease the system's share of so many cards, and say what was leased; None where there is no card."""

        def should_stop() -> bool:
            self.pulse.beat("waits for GPU memory")
            return self.stop.is_set() or self.pulse.lost

        lease = acquire_share(
            self.settings, self.claim.system, timeout_s=GPU_WAIT_S, should_stop=should_stop, cards=cards
        )
        if lease is None:
            yield None
            return
        with lease:
            yield gpu_limit(self.settings, lease)

    def _run_child(
        self,
        target: str,
        spec: Mapping[str, Any],
        on_progress: Callable[[dict[str, Any]], None] | None,
        should_end: Callable[[], bool],
    ) -> dict[str, Any]:
        def report(message: dict[str, Any]) -> None:
            self.pulse.beat(str(message.get("note", "")))
            if on_progress is not None:
                on_progress(message)

        try:
            return self.children.run(
                target,
                dict(spec),
                on_progress=report,
                should_stop=lambda: self.stop.is_set() or self.pulse.lost or should_end(),
                stall_s=self.step_s,
                log_path=self.log_path,
                grace_s=lambda: max(self.settings.control.grace_s / 2, self.pulse.stop_s),
            )
        except Stopping:
            self.progress()
            raise

    def commit(self, effects: Callable[[Transaction], None]) -> None:
        """A change in the middle of the work, refused with ClaimLost if the claim is stale."""
        with self.ledger.write() as tx:
            tx.cause = self.cause
            claims.require(tx, self.claim)
            effects(tx)
