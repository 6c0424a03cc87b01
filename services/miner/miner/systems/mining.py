"""Adversarial miner: which probe items a checkpoint is weak on, and how."""

from __future__ import annotations

from collections import Counter

from ratchet.evaluation.by_level import from_json
from ratchet.evaluation.stored import stored, stored_suite
from ratchet.events.catalogue import CheckpointEvaluated, ExamplesMined
from ratchet.ledger import Transaction
from ratchet.ledger.line import newest_evaluated
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import Mined
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.backlog import evaluated_without
from sqlalchemy import select
from sqlalchemy.orm import Session

from miner.mined_set import read_mined
from miner.mining import MinedItem, counts, mine, near_frontier

NAME = "mining"
REMEMBERED = 10
"""Earlier sets whose items count as mined before."""


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "probe")


def do(work: Work) -> Outcome:
    """Mine the newest checkpoint; what an older one is weak on has been answered anew since."""
    with work.read() as session:
        newest = newest_evaluated(session, "probe")
        suite = current(session, "probe")
        row = evaluation(session, work.subject.id, suite.id)
        earlier = select(Mined.artifact).where(Mined.artifact.is_not(None)).order_by(Mined.created_at.desc())
        artifacts = [artifact for artifact in session.scalars(earlier.limit(REMEMBERED)) if artifact]
    assert row is not None, "found by its record"
    if newest is not None and newest.id != work.subject.id:
        return Verdict("superseded", f"{newest.id} is newer")
    before = Counter(item.key for artifact in artifacts for item in read_mined(work.artifacts, artifact))
    found = mine(stored(work.artifacts, row), stored_suite(work.artifacts, suite).items, before, suite.items)
    rates = {level: rate.value for level, rate in from_json(row.by_level).items()}
    chosen = near_frontier(found, rates)[: work.settings.queue.mined_items]
    return _mined(work, chosen)


def _mined(work: Work, chosen: list[MinedItem]) -> Verdict:
    artifact = None
    if chosen:
        lines = (item.model_dump_json() for item in chosen)
        artifact = work.artifacts.publish_lines(lines, "batch", {"mined_from": work.subject.id}).id
    by_category = counts(chosen)

    def effects(tx: Transaction) -> None:
        tx.session.add(
            Mined(
                checkpoint_id=work.subject.id,
                artifact=artifact,
                count=len(chosen),
                by_category=by_category,
                created_at=tx.now,
            )
        )

    if not chosen:
        return Verdict("nothing mined", "no weak item near the frontier", effects=effects)
    words = ", ".join(f"{count} {category}" for category, count in sorted(by_category.items()))
    event = ExamplesMined(checkpoint_id=work.subject.id, count=len(chosen))
    return Verdict("mined", words, {"by_category": by_category}, effects, (event,))


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Finds the probe items that the newest checkpoint gets wrong, or right by luck.",
    says=(ExamplesMined,),
    sweep_s=300.0,
    lanes=(Lane("mine", (CheckpointEvaluated,), find, do),),
)
