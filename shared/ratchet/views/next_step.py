"""What would have to change for a checkpoint to be deployed: which case it is, with a title and sentences.

It decides nothing: the deployment system's own rules are in ``deployer.selection`` and ``ratchet.gate.decision``. What
the numbers of a judge or of the gate fell short of is put into words in ``missing_evidence``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.deployments import earlier_champions, serving
from ratchet.ledger.tables import (
    BlockRow,
    ChallengeRow,
    CheckpointRow,
    DeploymentRow,
    RegressionRow,
    ServingRow,
    VerdictRow,
)
from ratchet.systems import registry
from ratchet.views.missing_evidence import gate_needs, regression_needs, screen_needs
from ratchet.views.verdicts import missing_judges, open_dead_letters

Kind = Literal[
    "live",
    "going live",
    "base",
    "waits",
    "frozen",
    "gave up",
    "challenging",
    "blocked",
    "broken",
    "deleted",
    "replaced",
    "rolled back",
    "regressed",
    "screened out",
    "refused",
    "superseded",
]


@dataclass(frozen=True)
class NextStep:
    """``needs`` are sentences; checkpoints are named by their ids in them, which ``plain`` shortens."""

    kind: Kind
    title: str
    needs: tuple[str, ...] = ()


def next_step(session: Session, row: CheckpointRow) -> NextStep:
    """The first of these that holds: it is live, it cannot be deployed at all, it was decided on, it waits."""
    served = session.scalar(select(ServingRow).limit(1))
    if served is not None and served.desired_id == row.id:
        return _champion(served, row)
    if row.state != "saved":
        return _without_files(row)
    block = session.get(BlockRow, row.weights)
    if block is not None:
        return NextStep(
            "blocked",
            "Its weights are blocked.",
            (f"It was rolled back: {_ended(block.reason)}", "Somebody has to unblock it; it may then be deployed."),
        )
    if row.ordinal == 0:
        return NextStep(
            "base",
            "It is the base model.",
            ("It was live from the start, and the gate never challenges with it. An operator can deploy it by hand.",),
        )
    decided = _verdict(session, "deployment", row.id)
    if decided is not None:
        return _decided(session, row, decided)
    tested = _verdict(session, "testing", row.id)
    if tested is not None and tested.outcome == "superseded":
        return NextStep("superseded", "A newer one was tested in its place.", (_sentence(tested.reason), _BY_HAND))
    return _waiting(session, row)


_BY_HAND = "The gate does not come back to it. An operator can still deploy it by hand, marked as unproved."


def _champion(served: ServingRow, row: CheckpointRow) -> NextStep:
    if served.fallback_reason is not None:
        return NextStep("going live", "It should be live, and cannot be served.", (_sentence(served.fallback_reason),))
    if served.actual_id != row.id:
        return NextStep("going live", "It goes live.", ("The inference server is loading and checking it.",))
    proved = "" if served.proved else " It is marked as unproved: an operator has deployed it by hand."
    return NextStep("live", "It is live.", (f"It stays until another is proved better.{proved}",))


def _without_files(row: CheckpointRow) -> NextStep:
    if row.state == "broken":
        return NextStep(
            "broken",
            "It is broken and is never deployed.",
            (_sentence(row.reason or "its files are damaged"), "Training goes on from another checkpoint."),
        )
    return NextStep(
        "deleted",
        "Its files have been deleted.",
        ("Newer checkpoints have taken its place on disk, so it cannot be served again. Its verdicts are kept.",),
    )


def _decided(session: Session, row: CheckpointRow, decided: VerdictRow) -> NextStep:
    if decided.outcome == "deployed":
        return _replaced(session, row)
    if decided.outcome == "rolled back":
        return NextStep(
            "rolled back",
            "It was live and was rolled back.",
            (_sentence(decided.reason), "Its weights are not blocked any more, so an operator can deploy it again."),
        )
    if decided.outcome == "superseded":
        return NextStep("superseded", "A newer one took its place.", (_sentence(decided.reason), _BY_HAND))
    if decided.outcome == "screened out":
        needs = tuple(screen_needs(decided.numbers)) or (_sentence(decided.reason),)
        return NextStep("screened out", "It was not promising enough to be tested by the gate.", (*needs, _BY_HAND))
    evidence = decided.numbers.get("evidence")
    if isinstance(evidence, Mapping):
        return NextStep("refused", "The gate did not find it better and safe.", (*gate_needs(evidence), _BY_HAND))
    regression = session.get(RegressionRow, row.id)
    if regression is not None and regression.severity not in ("none", ""):
        return _regressed(regression, decided.reason)
    if decided.outcome == "blocked":
        return NextStep(
            "blocked",
            "Its weights were blocked when it was decided on.",
            (_sentence(decided.reason), "They are not blocked any more, so an operator can deploy it by hand."),
        )
    return NextStep("refused", f"It was {decided.outcome}.", (_sentence(decided.reason), _BY_HAND))


def _regressed(regression: RegressionRow, reason: str) -> NextStep:
    told = (
        reason or str(regression.numbers.get("reason", "")) or f"the regression monitor reports {regression.severity}"
    )
    needs = tuple(regression_needs(regression.numbers)) or (_sentence(told),)
    return NextStep("regressed", "It is worse than what is live or was best.", (*needs, _BY_HAND))


def _replaced(session: Session, row: CheckpointRow) -> NextStep:
    by = session.scalar(
        select(DeploymentRow)
        .where(DeploymentRow.previous_id == row.id, DeploymentRow.action.in_(("deploy", "rollback")))
        .order_by(DeploymentRow.id.desc())
        .limit(1)
    )
    told = "Another took its place."
    if by is not None:
        how = "by a rollback" if by.action == "rollback" else "proved better" if by.actor == "gate" else "by hand"
        told = f"{by.checkpoint_id} took its place, {how}."
    is_previous = serving(session).previous_id == row.id
    again = "A rollback brings it back." if is_previous else "It was proved, so an operator can deploy it again."
    return NextStep("replaced", "It was live.", (told, again))


def _waiting(session: Session, row: CheckpointRow) -> NextStep:
    """What the deployment of it waits for, the most decisive first."""
    letters = open_dead_letters(session, row.id)
    if letters:
        names = ", ".join(dict.fromkeys(letter.system for letter in letters))
        return NextStep(
            "gave up",
            f"{names} gave up on it.",
            ("Somebody has to have it tried again, under Systems, or it stays so.",),
        )
    regression = session.get(RegressionRow, row.id)
    if regression is not None and regression.severity not in ("none", ""):
        return _regressed(regression, "")
    frozen = serving(session).frozen_reason
    given = set(
        session.scalars(
            select(VerdictRow.system).where(
                VerdictRow.system.in_(registry.per_checkpoint(session)),
                VerdictRow.subject_kind == "checkpoint",
                VerdictRow.subject_id == row.id,
            )
        )
    )
    missing = missing_judges(session, given)
    judged = [f"It waits for {_listed(missing)}."] if missing else ["All judges have given their verdicts."]
    if frozen is not None:
        told = f"Deployments are frozen: {_ended(frozen)}"
        return NextStep("frozen", "Deployments are frozen.", (told, "Somebody has to unfreeze them.", *judged))
    challenge = session.scalar(
        select(ChallengeRow).where(ChallengeRow.challenger_id == row.id, ChallengeRow.outcome.is_(None)).limit(1)
    )
    if challenge is not None:
        told = f"This is challenge {challenge.k} of {challenge.champion_id}, on items that no one sees."
        return NextStep("challenging", "The gate is testing it.", (told,))
    if missing:
        return NextStep("waits", "It is still judged.", tuple(judged))
    if open_dead_letters(session, earlier_champions(session)[0]):
        told = "Testing gave up on a record of the champion, without which nothing can be compared with it."
        return NextStep("gave up", "It waits for the champion.", (told, "Somebody has to have that tried again."))
    return NextStep(
        "waits",
        "It waits for its turn.",
        (*judged, "The best-ranked of those that are newer than the champion challenges it first."),
    )


def _verdict(session: Session, system: str, checkpoint_id: str) -> VerdictRow | None:
    of_it = (VerdictRow.system == system, VerdictRow.subject_kind == "checkpoint")
    return session.scalar(select(VerdictRow).where(*of_it, VerdictRow.subject_id == checkpoint_id))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _sentence(text: str) -> str:
    """A reason as a sentence of its own; one that begins with a checkpoint's id is left as it is."""
    told = _ended(text)
    return told if told.startswith("c0") else told[:1].upper() + told[1:]


def _ended(text: str) -> str:
    """A reason as the end of a sentence."""
    told = " ".join(text.split())
    return told if told.endswith((".", "!", "?", "…")) else f"{told}."
