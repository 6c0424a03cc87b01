"""Checkpoint auto-deployment: the gate decides, the ledger has the desired state, and the server is reconciled."""

from __future__ import annotations

import logging

from ratchet.artifacts import ArtifactStore
from ratchet.errors import ServingError
from ratchet.evaluation.record import Evaluation
from ratchet.events.catalogue import (
    CheckpointCalibrated,
    CheckpointCleared,
    CheckpointDeployed,
    CheckpointEvaluated,
    CheckpointRegressed,
    DeploymentRefused,
    DeploymentRolledBack,
    EvaluationRequested,
    RankingChanged,
)
from ratchet.failpoint import failpoint
from ratchet.gate.decision import Promote, Refuse
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.deployments import (
    SERVING_SUBJECT,
    champion,
    last_deployment,
    last_rollback,
    note_live,
    promote,
    roll_back,
    serving,
)
from ratchet.ledger.drills import KIND
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, ServingRow
from ratchet.serving.client import ServingClient
from ratchet.serving.protocol import InferenceServer, Traffic
from ratchet.settings import Settings
from ratchet.systems import Lane, NotReady, Outcome, Reconciled, Subject, System, Verdict, Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from deployer.challenge import (
    Pair,
    judge_pair,
    open_challenge,
    read_pair,
    request_records,
    rotate_if_used_up,
    run_screen,
    unmeasured_tasks,
)
from deployer.drill import find_drill, run_drill
from deployer.gate_inputs import SYSTEM_NAME, certainty_of, rulings
from deployer.gate_record import close_challenge
from deployer.patient_server import PatientServer
from deployer.rollout import DAMAGED_FILES, Rollout, fall_back, prepare
from deployer.selection import Settle, Wait

log = logging.getLogger(__name__)

RECONCILE = Subject(*SERVING_SUBJECT[1:])


def check(settings: Settings, _ledger: Ledger, _artifacts: ArtifactStore) -> bool:
    """Raise TransientError unless the inference server answers and accepts the configured token."""
    with ServingClient.from_settings(settings.serving, settings.serving_home) as server:
        server.health()
        server.ping()
    return False


_LOGGED_WAITS: dict[str, str] = {}
"""What contenders waited for when they were last looked for, by checkpoint."""


def find(session: Session, _settings: Settings) -> list[Subject]:
    """The reconcile of the server first, then every contender that can be decided on, then a drill."""
    if session.get(ServingRow, "main") is None:
        return []
    ruled = rulings(session)
    _log_waits({id: ruling.waiting_for for id, ruling in ruled.items() if isinstance(ruling, Wait)})
    contenders = [Subject("checkpoint", id) for id, ruling in ruled.items() if not isinstance(ruling, Wait)]
    return [RECONCILE, *contenders, *find_drill(session)]


def _log_waits(waits: dict[str, str]) -> None:
    """Log what each contender waits for, once: it is looked for at every wake."""
    for id, waiting_for in waits.items():
        if _LOGGED_WAITS.get(id) != waiting_for:
            log.info("checkpoint/%s waits for %s", id, waiting_for)
    _LOGGED_WAITS.clear()
    _LOGGED_WAITS.update(waits)


def do(work: Work) -> Outcome:
    with ServingClient.from_settings(work.settings.serving, work.settings.serving_home) as client:
        server = PatientServer(client, work)
        highest = server.health().highest_fencing_token
        if highest > work.claim.token:
            return NotReady(
                f"`ratchet deploy reset-fencing`: the server refuses tokens below {highest}, see `ratchet doctor`"
            )
        if work.subject == RECONCILE:
            return _reconcile(work, server)
        return run_drill(work, server, client) if work.subject.kind == KIND else _decide(work, server)


def _reconcile(work: Work, server: InferenceServer) -> NotReady | Reconciled:
    """Bring the server to the desired state."""
    with work.read() as session:
        desired = champion(session)
        certainty = certainty_of(session, desired.id)
    rollout = Rollout(work, server, ())
    live = rollout.server.live()
    wanted = (desired.id, desired.weights, certainty)
    is_there = live is not None and (live.checkpoint_id, live.weights, live.certainty) == wanted
    try:
        if not is_there:
            rollout.bring_up(desired)
    except DAMAGED_FILES as error:
        return NotReady(f"an intact copy of {desired.id}", fall_back(work, rollout, desired, error))
    except ServingError as error:
        log.error("%s is desired, and the inference server refuses it: %s", desired.id, error)
        return NotReady("the inference server", lambda tx: note_live(tx, live.checkpoint_id if live else None))
    return Reconciled(lambda tx: note_live(tx, desired.id))


def _decide(work: Work, server: InferenceServer) -> Outcome:
    """Decide on one contender. A rollout or rollback that was interrupted is finished first."""
    with work.read() as session:
        ruling = rulings(session).get(work.subject.id)
        is_champion = serving(session).desired_id == work.subject.id
        promotion = last_deployment(session, work.subject.id) if is_champion else None
        rollback = last_rollback(session, work.subject.id)
    if promotion is not None:
        return _roll_out(work, server, work.subject.id, dict(promotion.numbers), promotion.reason)
    if rollback is not None:
        return Verdict("rolled back", rollback.reason)
    if isinstance(ruling, Settle):
        return _settle(work, ruling)
    if ruling is None or isinstance(ruling, Wait):
        return NotReady(ruling.waiting_for if ruling else "its evaluation")
    return _challenge(work, server)


def _settle(work: Work, ruling: Settle) -> Verdict:
    """A verdict without a challenge; it also closes a challenge that is still open."""

    def effects(tx: Transaction) -> None:
        left_open = (ChallengeRow.challenger_id == work.subject.id, ChallengeRow.outcome.is_(None))
        for row in tx.session.scalars(select(ChallengeRow).where(*left_open)):
            row.outcome = ruling.outcome

    event = DeploymentRefused(checkpoint_id=work.subject.id, reason=ruling.reason)
    return Verdict(
        ruling.outcome, ruling.reason, effects=effects, events=() if ruling.outcome == "superseded" else (event,)
    )


def _challenge(work: Work, server: InferenceServer) -> Outcome:
    """The screen, then a challenge on the confirm suite, then the smoke test, then the rollout."""
    found = run_screen(work, work.subject.id)
    if isinstance(found, NotReady):
        return found
    if not found.is_worth_opening:
        return _refuse(work, "screened out", found.reason, found.model_dump(mode="json"))
    rotate_if_used_up(work)
    sides = read_pair(work, work.subject.id, "confirm")
    unmeasured = unmeasured_tasks(work, sides)
    if unmeasured is not None:
        return unmeasured if isinstance(unmeasured, NotReady) else _settle(work, Settle("refused", unmeasured))
    challenge = open_challenge(work, sides)
    if sides.absent:
        return request_records(sides)
    decision = judge_pair(work, sides, challenge.k, smoke_passed=True)
    if isinstance(decision, Promote):
        tested = _smoke_test(work, server, sides, challenge.k, decision)
        if isinstance(tested, NotReady):
            return tested
        decision = tested
    numbers = close_challenge(work, challenge, decision)
    if isinstance(decision, Refuse):
        return _refuse(work, "refused", decision.reason, numbers)
    return _roll_out(work, server, sides.champion.id, numbers, decision.reason)


def _smoke_test(
    work: Work, server: InferenceServer, sides: Pair, k: int, decision: Promote
) -> Promote | Refuse | NotReady:
    prepared = prepare(work, server, sides.challenger)
    if isinstance(prepared, NotReady):
        return prepared
    rollout, record = prepared
    canary = rollout.smoke(sides.challenger, record)
    if not isinstance(canary, str) and canary.passed:
        return decision
    rollout.server.unload(sides.challenger.id)
    refusal = judge_pair(work, sides, k, smoke_passed=False)
    assert isinstance(refusal, Refuse)
    why = canary if isinstance(canary, str) else canary.reason
    return refusal.model_copy(update={"reasons": (*refusal.reasons, why)})


def _refuse(work: Work, outcome: str, reason: str, numbers: dict[str, object]) -> Verdict:
    event = DeploymentRefused(checkpoint_id=work.subject.id, reason=reason)
    return Verdict(outcome, reason, numbers, events=(event,))


def _roll_out(
    work: Work, server: InferenceServer, champion_id: str, numbers: dict[str, object], reason: str
) -> Outcome:
    """Change the desired state first, then the server; the watch decides whether the change stays.

    ``champion_id`` is the champion that the subject was judged against, or the subject itself where it is promoted
    already. What an operator has deployed in its place since then stays.
    """
    token, blockers = work.claim.token, list[str | None]()
    work.commit(lambda tx: blockers.append(promote(tx, work.subject.id, champion_id, reason, numbers, token)))
    if blockers[0] is not None:
        return NotReady(blockers[0])
    failpoint("after-promotion")
    with work.read() as session:
        challenger = session.get_one(CheckpointRow, work.subject.id)
        previous_id = serving(session).previous_id
        previous = session.get(CheckpointRow, previous_id) if previous_id else None
    prepared = prepare(work, server, challenger)
    if isinstance(prepared, NotReady):
        return prepared
    rollout, record = prepared
    problem = _switch_and_watch(work, rollout, challenger, record, _traffic(rollout, previous))
    if problem is not None and previous is not None:
        return _return_to_previous(work, rollout, challenger, previous, problem)
    rollout.unload_others({challenger.id} | ({previous.id} if previous else set()))
    return Verdict("deployed", reason, numbers)


def _switch_and_watch(
    work: Work, rollout: Rollout, challenger: CheckpointRow, record: Evaluation, before: Traffic | None
) -> str | None:
    """Switch the server and watch it; returns the reason to roll back, or None."""
    try:
        rollout.bring_up(challenger)
    except ServingError as error:
        return f"the inference server refused it: {error}"
    work.commit(lambda tx: note_live(tx, challenger.id))
    failpoint("after-observation")
    problem = rollout.watch(challenger, record, before)
    failpoint("after-watch")
    return problem


def _return_to_previous(work: Work, rollout: Rollout, bad: CheckpointRow, good: CheckpointRow, problem: str) -> Verdict:
    """Roll back to the previous champion, or to the one that an operator has deployed during the watch."""

    def effects(tx: Transaction) -> None:
        roll_back(tx, bad.id, good.id, "watch", problem, work.claim.token)

    work.commit(effects)
    failpoint("after-rollback")
    with work.read() as session:
        good = champion(session)
    try:
        rollout.bring_up(good)
    except DAMAGED_FILES as error:
        return Verdict("rolled back", problem, effects=fall_back(work, rollout, good, error))
    failpoint("after-return")
    rollout.unload_others({good.id})
    return Verdict("rolled back", problem, effects=lambda tx: note_live(tx, good.id))


def _traffic(rollout: Rollout, previous: CheckpointRow | None) -> Traffic | None:
    if previous is None:
        return None
    try:
        return rollout.server.stats(previous.id)
    except ServingError:
        return None


SYSTEM = System(
    name=SYSTEM_NAME,
    host="4090",
    purpose="Lets the best candidate challenge the champion, and keeps the inference server at what is desired.",
    emits=(EvaluationRequested, CheckpointDeployed, DeploymentRefused, DeploymentRolledBack),
    sweep_s=600.0,
    lanes=(
        Lane(
            "deploy",
            (RankingChanged, CheckpointCleared, CheckpointRegressed, CheckpointCalibrated, CheckpointEvaluated),
            find,
            do,
            check=check,
            reconciled=(RECONCILE.kind,),
        ),
    ),
    order=11,
    per_checkpoint=True,
    pending="eval records of trained checkpoints",
)
