"""The rollback drill: a planted bad checkpoint is loaded beside the champion, caught by the canary, and removed again.

The champion answers clients all the time: the planted checkpoint is never switched to, and is no row of the ledger. The
steps and the code of a real rollout are used: the load, the canary against the champion's record, and the return to the
champion. What an interrupted attempt has left is removed before anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from ratchet.disk import disk_errors
from ratchet.errors import ArtifactError, ClaimLost, RatchetError, ServingError
from ratchet.evaluation.record import Evaluation
from ratchet.failpoint import failpoint
from ratchet.ledger import Transaction, drills
from ratchet.ledger.deployments import champion, serving
from ratchet.ledger.suites import current, evaluation, request_evaluation
from ratchet.ledger.tables import CheckpointRow, DrillRow
from ratchet.serving.protocol import InferenceServer, Live
from ratchet.systems import NotReady, Subject, Verdict, Work
from ratchet.systems.work import nothing
from sqlalchemy.orm import Session

from deployer.gate_inputs import SYSTEM_NAME
from deployer.patient_server import patiently
from deployer.planting import PREFIX, Planted, damaged_copy
from deployer.rollout import Rollout, prepare

ATTEMPTS = 2
"""An attempt may be interrupted by the end of its worker. After this many the drill is marked as failed."""


def find_drill(session: Session) -> list[Subject]:
    """The requested drill, if there is one."""
    row = drills.pending(session)
    return [Subject(drills.KIND, str(row.id))] if row is not None else []


@dataclass(frozen=True)
class Result:
    outcome: drills.Outcome
    detail: str


class _Overtaken(Exception):
    """Another champion is desired meanwhile, which comes first."""


def run_drill(work: Work, server: InferenceServer, direct: InferenceServer) -> Verdict | NotReady:
    """Carry out a drill. ``server`` reports progress during its calls; ``direct`` is the same server without that.

    Raises TransientError while the server is away; the drill then begins anew.
    """
    with work.read() as session:
        row, best = drills.drill(session, int(work.subject.id)), champion(session)
    _remove_planted(work, direct, row)
    if row.attempts >= ATTEMPTS:
        why = f", the last time by: {row.detail}" if row.detail else " by the end of the worker"
        return _finished(work, row, Result("failed", f"it was interrupted {row.attempts} times{why}"), direct.live())
    found = _prepared(work, row, server, best)
    if isinstance(found, NotReady):
        return found
    rollout, record, live = found
    work.commit(lambda tx: drills.begin(tx, row.id, live.checkpoint_id, live.weights))
    try:
        result = _rehearse(Rehearsal(work, row, rollout, best), record)
    except _Overtaken as error:
        _remove_planted(work, direct, row)
        waiting_for = str(error)
        return NotReady(waiting_for, lambda tx: drills.call_off(tx, row.id, waiting_for))
    except (ServingError, ArtifactError) as error:
        result = Result("failed", str(error))
    except ClaimLost:  # whoever has taken over removes it
        raise
    except RatchetError as error:
        _remove_planted(work, direct, row)
        said = str(error)
        work.commit(lambda tx: drills.note_interruption(tx, row.id, said))
        raise
    _remove_planted(work, direct, row)
    return _finished(work, row, _checked(result, live, direct), direct.live())


def _prepared(
    work: Work, row: DrillRow, server: InferenceServer, best: CheckpointRow
) -> tuple[Rollout, Evaluation, Live] | NotReady:
    """The champion's rollout with its eval record, and what is live; or what the drill has to wait for."""
    live = server.live()
    if live is None or (live.checkpoint_id, live.weights) != (best.id, best.weights):
        return _waiting(row, f"the champion {best.id}, which the inference server does not serve now")
    with work.read() as session:
        suite = current(session, "eval")
        judged = evaluation(session, best.id, suite.id)
    if judged is None:
        what = f"a record of the champion {best.id} on the current eval suite, which testing is asked for"
        return _waiting(row, what, lambda tx: request_evaluation(tx, best.id, suite.id, SYSTEM_NAME, best.id))
    found = prepare(work, server, best)
    return _waiting(row, found.waiting_for, found.effects) if isinstance(found, NotReady) else (*found, live)


@dataclass
class Rehearsal:
    """One attempt: its steps are timed, and each one is begun only while the champion stays the desired one."""

    work: Work
    row: DrillRow
    rollout: Rollout
    champion: CheckpointRow
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{PREFIX}{self.row.id}"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step. Raises _Overtaken, Stopping or ClaimLost before it begins."""
        with self.work.read() as session:
            desired = serving(session).desired_id
        if desired != self.champion.id:
            raise _Overtaken(f"the deployment of {desired}, which comes first")
        self.work.progress(f"rollback drill: {drills.STEPS[name]}")
        started = time.monotonic()
        yield
        took_s = time.monotonic() - started
        self.work.commit(lambda tx: drills.note_step(tx, self.row.id, name, took_s))

    def plant(self) -> Planted:
        """Publish the damaged copy. Its id is recorded first, so that a killed worker's copy can be removed.

        It goes through the artifact store because the server may be on another host.
        """
        source = self.work.artifacts.fetch(self.champion.artifact)
        folder = self.work.folder / "planted"
        copy = partial(damaged_copy, source, folder, self.name)
        with disk_errors(self.work.folder):
            planted = patiently(self.work, "rollback drill: making a damaged copy", copy)
        self.work.commit(lambda tx: drills.note_planted(tx, self.row.id, planted.artifact))
        publish = partial(self.work.artifacts.publish, folder, "checkpoint", {"drill": self.row.id}, consume=True)
        patiently(self.work, "rollback drill: publishing the damaged copy", publish)
        failpoint("after-plant")
        return planted


def _rehearse(drill: Rehearsal, record: Evaluation) -> Result:
    """The steps of the drill. The champion passes the canary first: one that refuses everything catches nothing."""
    with drill.step("control"):
        control = drill.rollout.canary(drill.champion.id, record)
    if not control.passed:
        return Result("failed", f"the live champion {drill.champion.id} does not pass its own canary: {control.reason}")
    with drill.step("plant"):
        planted = drill.plant()
    with drill.step("load"):
        drill.rollout.load(planted)
    with drill.step("canary"):
        canary = drill.rollout.compare(planted.id, record)
    with drill.step("return"):
        drill.rollout.bring_up(drill.champion)
        drill.rollout.unload_others({drill.champion.id})
    if canary.passed:
        return Result("not caught", "the canary passed a checkpoint whose token embedding is damaged")
    return Result("caught", canary.reason)


def _checked(result: Result, before: Live, server: InferenceServer) -> Result:
    """The result, or a failure where the server does not serve and hold what it did before."""
    health = server.health()
    after = health.live
    if after is None or (after.checkpoint_id, after.weights) != (before.checkpoint_id, before.weights):
        return Result(
            "failed", f"{after.checkpoint_id if after else 'nothing'} is live, and not {before.checkpoint_id}"
        )
    left = [name for name in health.loaded if name.startswith(PREFIX)]
    return Result("failed", f"the server still holds {', '.join(left)}") if left else result


def _remove_planted(work: Work, server: InferenceServer, row: DrillRow) -> None:
    """Unload what drills have planted, and delete its files. Raises ServingError, TransientError."""
    for name in server.health().loaded:
        if name.startswith(PREFIX):
            server.unload(name)
    with work.read() as session:
        artifact = drills.drill(session, row.id).planted_artifact
    if artifact is not None:
        work.artifacts.delete(artifact)
        work.commit(lambda tx: drills.note_planted(tx, row.id, None))


def _waiting(row: DrillRow, what: str, request: Callable[[Transaction], None] = nothing) -> NotReady:
    """``request`` asks for what is missing."""

    def effects(tx: Transaction) -> None:
        drills.note_waiting(tx, row.id, what)
        request(tx)

    return NotReady(what, effects)


def _finished(work: Work, row: DrillRow, result: Result, live: Live | None) -> Verdict:
    after = (live.checkpoint_id, live.weights) if live else (None, None)
    with work.read() as session:
        steps = drills.drill(session, row.id).steps
    return Verdict(
        result.outcome,
        result.detail,
        {"steps": steps},
        effects=lambda tx: drills.finish(tx, row.id, result.outcome, result.detail, *after),
    )
