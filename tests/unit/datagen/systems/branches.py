"""A home in which forks are opened, and steps of their stories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.data.example import Example
from ratchet.ledger import forks
from ratchet.ledger.queue import next_batch
from ratchet.ledger.tables import Batch, Branch, Checkpoint, Fork, Line
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.testing.home import Home, Knows
from ratchet.testing.rows import dead_letter, verdict


def sums(seed: int, n: int = 20) -> list[Example]:
    return [to_example(registry.get("chain_sum").generate(1, 1_000 * seed + k), "test") for k in range(n)]


def trained(home: Home, seed: int) -> str:
    """An ordinary batch, trained to the end; its checkpoint."""
    batch = home.add_batch(sums(seed), state="trained")
    with home.ledger.write() as tx:
        tx.session.get_one(Batch, batch).finished_at = tx.now
    return home.add_checkpoint(batch)


def knowing(items: int) -> Knows:
    """A made-up model that answers so many of the probe right, the same ones first."""
    answered: set[str] = set()

    def knows(item: Example) -> bool:
        if len(answered) < items:
            answered.add(item.id)
        return item.id in answered

    return knows


def with_open_experiment(home: Home) -> None:
    """Level 1 of one family is mastered."""
    home.add_record(trained(home, 1), "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    home.add_record(trained(home, 2), "probe", lambda item: item.level == 1)


def supplied(home: Home) -> None:
    """The curriculum has opened a fork, and generation and the gate have given each branch its batch."""
    with_open_experiment(home)
    home.bus(CURRICULUM, GENERATION, CORRECTION).sweep()


def opened(home: Home) -> None:
    """A fork is open, and has a batch for each branch in the queue, beside an ordinary one."""
    home.add_record(trained(home, 1), "probe", knowing(10))
    home.add_batch(sums(3), state="queued")
    arms = ("progressive", "adaptive")
    batches = [home.add_batch(sums(seed), state="queued") for seed in (4, 5)]
    with home.ledger.write() as tx:
        forks.begin(tx, 1, dict.fromkeys(arms, 1.0), 1)
        tx.session.flush()
        for place, batch_id in enumerate(batches):
            drawn = {"arm": arms[place], "probability": 1.0, "fork": 1}
            tx.session.get_one(Batch, batch_id).provenance = {"assignment": drawn}
            forks.give_batch(tx, 1, place, batch_id)


def the_fork(home: Home) -> tuple[Fork, Sequence[Branch]]:
    with home.ledger.read() as session:
        fork = session.query(Fork).one()
        return fork, forks.branches(session, fork.id)


def upcoming(home: Home) -> Batch | None:
    with home.ledger.read() as session:
        return next_batch(session)


def head_id(home: Home) -> str:
    with home.ledger.read() as session:
        return session.get_one(Line, "main").head_id


def begin(home: Home) -> str:
    """Open the batch that comes next, as training does."""
    batch = upcoming(home)
    assert batch is not None
    with home.ledger.write() as tx:
        forks.enter(tx, batch.id)
        row = tx.session.get_one(Batch, batch.id)
        row.state, row.started_at = "training", tx.now
    return batch.id


def end(home: Home, batch_id: str, outcome: str = "trained") -> str:
    """A checkpoint of that batch, and training's verdict on it."""
    checkpoint = home.add_checkpoint(batch_id)
    with home.ledger.write() as tx:
        row = tx.session.get_one(Batch, batch_id)
        row.state, row.finished_at = outcome, tx.now
        if outcome == "trained":
            forks.complete(tx, batch_id)
        give_verdict(tx, "training", "batch", batch_id, outcome)
    return checkpoint


def give_verdict(tx: Any, system: str, kind: str, subject_id: str, outcome: str) -> None:
    tx.session.add(verdict(system, kind, subject_id, outcome, tx.now))


def both_trained(home: Home) -> tuple[str, str]:
    opened(home)
    first = end(home, begin(home))
    return first, end(home, begin(home))


def break_(home: Home, checkpoint_id: str) -> None:
    with home.ledger.write() as tx:
        tx.session.get_one(Checkpoint, checkpoint_id).state = "broken"


def give_up(home: Home, system: str, kind: str, subject_id: str) -> None:
    with home.ledger.write() as tx:
        tx.session.add(dead_letter(system, kind, subject_id, tx.now))
