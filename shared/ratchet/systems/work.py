"""The argument and the result of a system's function: the work on one claimed subject, and its outcome.

It does not know how subjects are found and claimed, or how outcomes are committed.
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
    """The effect of an outcome that changes nothing else."""


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

    ``effects`` and ``events`` may request what is missing.
    """

    waiting_for: str
    effects: Callable[[Transaction], None] = nothing
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Reconciled:
    """The subject is in its desired state. It gets no verdict, so that it is checked again."""

    effects: Callable[[Transaction], None] = nothing
    events: tuple[Event, ...] = ()


Outcome = Verdict | NotReady | Reconciled

GPU_LIMITED = "ratchet.inference.gpu_limit:run"
GPU_WAIT_S = 600.0
"""After this time the claim is released, and the subject is pending again."""


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
    """One subject under one claim. ``folder`` belongs to this claim alone and is removed afterwards."""

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
        """A consistent read-only session on the ledger."""
        return self.ledger.read()

    def progress(self, note: str = "") -> None:
        """Report progress, with a note on the current step.

        Raises Stopping if the worker was asked to stop, and ClaimLost if another worker has taken over.
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

        When ``should_end`` returns True, the child gets SIGTERM, as when the worker stops, and returns what it has.

        On a GPU, the call waits for the system's share of the memory of that many ``cards``, and the child is limited
        to it. Raises ChildFailed when the child raises, dies or stalls, SettingsError when it finds a setting wrong,
        and Stopping or ClaimLost as ``progress`` does.
        """
        with self._gpus(cards) as found:
            if found is not None:
                spec = {"target": target, "spec": dict(spec), "gpu_limit": found}
                target = GPU_LIMITED
            return self._run_child(target, spec, on_progress, should_end)

    @contextmanager
    def _gpus(self, cards: int) -> Iterator[GpuLimit | None]:
        """Lease the system's share of that many cards; None without a GPU."""

        def should_stop() -> bool:
            self.pulse.beat("waiting for GPU memory")
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
        """Commit a change in the middle of the work. Raises ClaimLost if the claim is stale."""
        with self.ledger.write() as tx:
            tx.cause = self.cause
            claims.require(tx, self.claim)
            effects(tx)
