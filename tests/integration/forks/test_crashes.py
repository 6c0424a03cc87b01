"""A fork from its opening to its decision, in a process that dies again and again between two commits.

Generation, gate, curriculum and training are the real systems; what is made up is the model that a segment leaves and
the record that testing would make of it.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.data.example import Example
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.forks import branches
from ratchet.ledger.tables import Batch, Checkpoint, Claim, Evaluation, Fork, Line, Outbox, Trial, Verdict
from ratchet.testing.bus import InlineChildren, InProcessBus
from ratchet.testing.home import Home, small_home
from ratchet.testing.rows import verdict
from sqlalchemy import update
from trainer.systems.training import SYSTEM as TRAINING

SYSTEMS = (GENERATION, CORRECTION, CURRICULUM, TRAINING)
SECTIONS: dict[str, Any] = {
    "curriculum": {"fork_every": 1},
    "queue": {"unjudged_limit": 2, "batch_examples": 60, "low_water": 60, "high_water": 240},
    "generation": {"workers": 1},
    "control": {"heartbeat_s": 3.0},
}


class Killed(BaseException):
    """What a test of deaths raises in place of SIGKILL: nothing catches it."""


class MortalLedger(Ledger):
    """Kills its process after so many commits of the main thread."""

    commits_left = 0

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with super().write() as tx:
            yield tx
        if threading.current_thread() is threading.main_thread():
            self.commits_left -= 1
            if not self.commits_left:
                raise Killed


@dataclass
class Segments(InlineChildren):
    """Half a batch a segment; the weights say on what they were trained, in which order."""

    trained: list[tuple[str, int]] = field(default_factory=list)

    def run(self, target: str, spec: dict[str, Any], **limits: Any) -> dict[str, Any]:
        if target != "trainer.segment:run_segment":
            return super().run(target, spec, **limits)
        before = Path(spec["model"]["path"], "model.safetensors").read_text()
        place = f"{Path(spec['data_path']).parent.name[:16]}+{spec['offset']}"
        state = json.loads(Path(spec["state"], "state.json").read_text()) if spec["state"] else {"tokens": 0}
        output = Path(spec["output"])
        for name in ("model", "state"):
            (output / name).mkdir(parents=True)
        (output / "model" / "model.safetensors").write_text(f"{before} {place}")
        tokens = state["tokens"] + 500
        weights = hashlib.sha256(f"{before} {place}".encode()).hexdigest()
        told = {"form": "full", "tokens": tokens, "weights": weights}
        (output / "state" / "state.json").write_text(json.dumps(told))
        return {
            "success": True,
            "offset": spec["offset"] + 30,
            "rows": 60,
            "finished": spec["offset"] == 30,
            "global_step": spec["global_step"] + 3,
            "total_tokens": tokens,
            "weights": weights,
            "checkpoint": str(output / "model"),
            "state": str(output / "state"),
            "mean_loss": 1.0,
            "final_loss": 1.0,
            "tokens_per_s": 1_000.0,
        }


def lived(home: Home, commits: int) -> bool:
    """One life of a process: to its death after so many commits, or until nothing is left to do."""
    ledger = MortalLedger(home.settings.ledger_url)
    ledger.commits_left = commits
    try:
        InProcessBus(SYSTEMS, home.settings, ledger, home.artifacts, Segments()).sweep()
    except Killed:
        return False
    finally:
        ledger.close()
        with home.ledger.write() as tx:
            tx.session.execute(update(Claim).values(owner=None))  # leases run out
    return True


def judge(home: Home) -> None:
    """Give every checkpoint its record and testing's verdict: the later, the better."""
    with home.ledger.read() as session:
        tested = {row.checkpoint_id for row in session.query(Evaluation)}
        untested = session.query(Checkpoint).filter(Checkpoint.id.not_in(tested)).order_by(Checkpoint.ordinal).all()
    for checkpoint in untested:
        home.add_record(checkpoint.id, "probe", _level_1_and(5 * checkpoint.ordinal))
        with home.ledger.write() as tx:
            tx.session.add(verdict("testing", "checkpoint", checkpoint.id, "evaluated", tx.now))


def _level_1_and(more: int) -> Any:
    known: set[str] = set()

    def knows(item: Example) -> bool:
        if item.level == 1 or item.id in known:
            return True
        if len(known) < more:
            known.add(item.id)
        return item.id in known

    return knows


@pytest.mark.parametrize("seed", [1, 2])
def test_a_process_that_dies_between_any_two_steps_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    chance, deaths = random.Random(seed), 0
    with small_home(tmp_path / "run", **SECTIONS) as home:
        for _ in range(400):
            if lived(home, chance.randint(1, 9)):
                judge(home)
            else:
                deaths += 1
            with home.ledger.read() as session:
                first = session.get(Fork, 1)
            if first is not None and first.state != "open":
                break
        while not lived(home, 10_000):
            pass
        assert deaths > 10
        assert home.dead() == []
        check(home)


def check(home: Home) -> None:
    with home.ledger.read() as session:
        fork = session.get_one(Fork, 1)
        rows = branches(session, 1)
        assert fork.state == "decided"
        assert home.verdicts("curriculum")["1"] == "decided"
        told = Counter(row.name for row in session.query(Outbox) if '"fork_id":1' in row.body.replace(" ", ""))
        assert told == {"fork.opened": 1, "fork.closed": 1}
        for row in rows:
            chain = session.query(Checkpoint).filter(Checkpoint.batch_id == row.batch_id).order_by(Checkpoint.ordinal)
            first, second = chain.all()
            assert (first.parent_id, second.parent_id) == (fork.parent_id, first.id)
            assert (first.offset, second.offset, row.tip_id) == (30, 60, second.id)
            assert session.get_one(Batch, row.batch_id).provenance["assignment"]["arm"] == row.arm
        bound = [b.id for b in session.query(Batch) if b.provenance["assignment"].get("fork") == 1]
        assert sorted(bound) == sorted(str(row.batch_id) for row in rows)
        trials = {trial.checkpoint_id: trial.arm for trial in session.query(Trial)}
        assert {str(row.tip_id): row.arm for row in rows}.items() <= trials.items()
        verdicts = Counter((v.system, v.subject_kind, v.subject_id) for v in session.query(Verdict))
        assert set(verdicts.values()) == {1}
        after = session.query(Checkpoint).filter(Checkpoint.parent_id == rows[fork.winner or 0].tip_id).all()
        assert after
        assert session.get_one(Line, "main").head_id not in {row.tip_id for row in rows}
