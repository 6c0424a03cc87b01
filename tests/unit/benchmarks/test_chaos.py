"""The parts of the chaos rounds that need no stack.

Each invariant fails on a ledger that breaks it, the journal goes on where it ended, and the plan is fair.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from ratchet.ledger import Ledger, Transaction, deployments
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import (
    BatchRow,
    ChallengeRow,
    CheckpointRow,
    ClaimRow,
    DeadLetterRow,
    DeploymentRow,
    SuiteRow,
    VerdictRow,
)
from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.chaos import live_run
from benchmarks.chaos.faults.catalogue import FAULTS
from benchmarks.chaos.faults.fault import Fault
from benchmarks.chaos.invariants import LEDGER_CHECKS, Lasting, dead_letters, leaked_folders, orphans
from benchmarks.chaos.journal import FILE, Journal, Round
from benchmarks.chaos.live_run import TAG, LiveRun
from benchmarks.chaos.plan import plan

Break = Callable[[Transaction], None]


def checkpoint(ordinal: int, **changes: object) -> CheckpointRow:
    values: dict[str, object] = {
        "id": f"c{ordinal}",
        "ordinal": ordinal,
        "parent_id": f"c{ordinal - 1}" if ordinal else None,
        "batch_id": "b" if ordinal else None,
        "offset": 10 * ordinal,
        "step": ordinal,
        "tokens": ordinal,
        "weights": f"w{ordinal}",
        "artifact": f"a{ordinal}",
        "state_artifact": None,
        "size_bytes": 1,
        "created_at": 0.0,
    }
    return CheckpointRow(**{**values, **changes})


def verdict(subject: str) -> VerdictRow:
    return VerdictRow(
        system="testing",
        subject_kind="checkpoint",
        subject_id=subject,
        outcome="evaluated",
        reason="",
        numbers={},
        cause=None,
        worker="testing@here+0",
        created_at=0.0,
        took_s=0.0,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Two checkpoints of one trained batch, a verdict on each, the second deployed by the gate after one challenge."""
    made = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(made)
    with made.write() as tx:
        batch = {"submitted_artifact": "s", "artifact": "s", "submitted_examples": 20, "examples": 20, "offset": 20}
        times = {"submitted_at": 0.0, "queued_at": 0.0, "started_at": 0.0, "finished_at": 0.0}
        tx.session.add(
            BatchRow(id="b", origin="generation", state="trained", priority=1, provenance={}, **batch, **times)
        )
        tx.session.flush()
        for ordinal in range(3):
            tx.session.add(checkpoint(ordinal))
            tx.session.flush()
            tx.session.add(verdict(f"c{ordinal}"))
        deployments.begin(tx, "c0")
        tx.session.flush()
        deployments.deploy(tx, "c2", "gate", "better", is_proved=True)
        tx.session.add(SuiteRow(id="s", pool="confirm", ordinal=0, artifact="s", items=1, created_at=0.0))
        tx.session.flush()
        tx.session.add(challenge(1))
    yield made
    made.close()


def challenge(k: int) -> ChallengeRow:
    return ChallengeRow(
        champion_id="c0", challenger_id=f"c{k}", k=k, suite_id="s", outcome=None, numbers={}, created_at=0.0
    )


def broken(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return [each for check in (*LEDGER_CHECKS, dead_letters) for each in check(session)]


def two_verdicts(tx: Transaction) -> None:
    """The schema forbids it: a ledger without that constraint is made."""
    for statement in (
        "CREATE TABLE loose AS SELECT * FROM verdicts",
        "INSERT INTO loose SELECT id + 10, system, subject_kind, subject_id, outcome, reason, numbers, cause, worker,"
        " created_at, took_s FROM verdicts WHERE subject_id = 'c1'",
        "DROP TABLE verdicts",
        "ALTER TABLE loose RENAME TO verdicts",
    ):
        tx.session.execute(text(statement))


def a_claim_is_left(tx: Transaction) -> None:
    times = {"first_at": 0.0, "claimed_at": 0.0, "heartbeat_at": 0.0, "expires_at": 0.0, "not_before_at": 0.0}
    tx.session.add(ClaimRow(system="testing", subject_kind="checkpoint", subject_id="c1", token=7, owner="x", **times))


def rows_are_trained_twice(tx: Transaction) -> None:
    tx.session.get_one(CheckpointRow, "c1").offset = 20


def rows_are_missed(tx: Transaction) -> None:
    tx.session.get_one(CheckpointRow, "c2").offset = 19


def a_checkpoint_is_missing(tx: Transaction) -> None:
    tx.session.add(checkpoint(4, parent_id="c2", offset=30, batch_id=None))


def a_checkpoint_has_no_parent(tx: Transaction) -> None:
    tx.session.get_one(CheckpointRow, "c2").parent_id = None


def two_champions(tx: Transaction) -> None:
    deployments.deploy(tx, "c1", "operator", "by hand", is_proved=False)
    tx.session.flush()
    last = tx.session.query(DeploymentRow).order_by(DeploymentRow.id.desc()).first()
    assert last is not None
    last.previous_id = "c0"


def another_one_is_desired(tx: Transaction) -> None:
    deployments.serving(tx.session).desired_id = "c1"


def promoted_twice(tx: Transaction) -> None:
    deployments.deploy(tx, "c0", "operator", "by hand", is_proved=False)
    tx.session.flush()
    deployments.deploy(tx, "c2", "gate", "better", is_proved=True)


def a_challenge_is_missing(tx: Transaction) -> None:
    tx.session.add(challenge(2))
    tx.session.flush()
    tx.session.query(ChallengeRow).filter_by(k=1).delete()


def a_dead_letter(tx: Transaction) -> None:
    tx.session.add(
        DeadLetterRow(
            system="testing",
            subject_kind="checkpoint",
            subject_id="c1",
            error="artifact a1 is damaged",
            traceback="",
            failures=3,
            kills=0,
            created_at=0.0,
        )
    )


def test_a_sound_ledger_breaks_nothing(ledger: Ledger) -> None:
    assert broken(ledger) == []


@pytest.mark.parametrize(
    ("damage", "evidence"),
    [
        (two_verdicts, "testing has 2 verdicts on checkpoint/c1"),
        (a_claim_is_left, "testing has decided on checkpoint/c1 and claims it with token 7"),
        (rows_are_trained_twice, "c2 trains batch b up to row 20, as c1 did up to 20"),
        (rows_are_missed, "batch b is trained at row 19 of 20 (offset 20)"),
        (a_checkpoint_is_missing, "the ordinals of 4 checkpoints are not 0 to 3"),
        (a_checkpoint_has_no_parent, "c2 (#2) has the parent None"),
        (two_champions, "deploy 3 replaces c0, while c2 was the champion"),
        (another_one_is_desired, "desired is c1, and the last change made c2 the champion"),
        (promoted_twice, "the gate has promoted c2 2 times in the place of c0"),
        (a_challenge_is_missing, "the challenges of c0 are 1, and the last is number 2"),
        (a_dead_letter, "dead letter of testing on c1: artifact a1 is damaged"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_invariant_fails_on_a_ledger_that_breaks_it(ledger: Ledger, damage: Break, evidence: str) -> None:
    with ledger.write() as tx:
        damage(tx)
    assert broken(ledger) == [evidence]


def test_a_dead_letter_for_an_artifact_that_was_damaged_on_purpose_is_none_of_the_surroundings(ledger: Ledger) -> None:
    with ledger.write() as tx:
        a_dead_letter(tx)
    with ledger.read() as session:
        assert dead_letters(session, {"a1"}) == []


def test_what_is_wrong_for_a_moment_is_broken_after_its_bound_and_reported_once() -> None:
    now = [0.0]
    lasting = Lasting(10.0, lambda: now[0])
    assert lasting.note(["late"]) == []
    now[0] = 9.0
    assert lasting.note([]) == []
    assert lasting.note(["late"]) == []
    now[0] = 20.0
    assert lasting.note(["late"]) == ["late, for 11 s"]
    now[0] = 30.0
    assert lasting.note(["late"]) == []


def test_processes_and_folders_that_nobody_owns_are_found(tmp_path: Path) -> None:
    assert orphans([1, 2], [(2, "worker"), (3, "python")]) == ["process 3 (python) has lost its run"]
    for name in ("testing@here+0/7", "testing@here+0/8", "answers/c1"):
        (tmp_path / name).mkdir(parents=True)
    assert leaked_folders(tmp_path, {"8"}) == ["work folder testing@here+0/7"]
    assert leaked_folders(tmp_path / "absent", set()) == []


def test_a_process_of_a_run_is_found_by_its_environment_also_without_its_parents(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "home", {}, {})
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        command, env={**os.environ, TAG: str(run.home)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [each.pid for each in run.tagged()] == [process.pid]
        process.communicate(b"\n")
    assert list(run.tagged()) == []
    run.ledger.close()


def test_a_run_that_ends_by_itself_is_noted_and_started_again_and_one_that_was_killed_is_started_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_run, "RATCHET", [sys.executable, "-c", "import sys; sys.exit('the ledger is away')"])
    run = LiveRun(tmp_path / "home", {}, {})
    run.start()
    for has_worked, code, noted in ((False, 1, 0), (True, 1, 1), (True, -9, 1)):
        assert run.process is not None
        run.process.wait(60)
        run._has_worked, run.process.returncode = has_worked, code
        run.keep_running()
        assert len(run.ended) == noted
    assert "exit code 1: the ledger is away" in run.ended[0]
    run.end()


def test_a_journal_goes_on_where_it_ended_also_after_a_kill_amid_a_line(tmp_path: Path) -> None:
    first = Journal(tmp_path, seed=7)
    first.add(Round(1, "plain", "redis flushed", "flushed 3 keys", 0.5, 1.0, 3, 1))
    first.add(Round(2, "plain", "redis flushed", "flushed 4 keys", 1.5, 2.0, 4, 1, ["two champions"]))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"number": 3, "seg')
    again = Journal(tmp_path, seed=8)
    again.add(Round(3, "plain", "worker killed", "killed 5", 0.1, 0.2, 5, 1))
    assert (again.seed, [each.number for each in again.rounds]) == (7, [1, 2, 3])
    assert [each.number for each in Journal(tmp_path, seed=8).broken()] == [2]
    assert again.rounds[1].line(9).endswith("BROKEN: two champions")
    assert "| redis flushed | plain | 2 | 1.5 | 1.5 | 1 |" in again.table()


def test_every_fault_comes_up_equally_often_in_an_order_that_the_seed_decides() -> None:
    def strike(_run: object, _dice: object) -> str:
        return ""

    faults = [Fault("a", strike), Fault("b", strike), Fault("c", strike, "postgres")]
    drawn = [fault.name for fault in islice(plan(faults, 1, 2), 12)]
    assert Counter(drawn) == {"a": 4, "b": 4, "c": 4}
    assert drawn[4:6] == ["c", "c"]
    assert drawn == [fault.name for fault in islice(plan(faults, 1, 2), 12)]
    assert [fault.name for fault in islice(plan(faults, 2, 20), 40)] != [
        fault.name for fault in islice(plan(faults, 1, 20), 40)
    ]


def test_faults_have_different_names() -> None:
    names = Counter(fault.name for fault in FAULTS)
    assert max(names.values()) == 1
    assert len(names) >= 40


def test_checks_read_an_empty_ledger(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    with ledger.read() as session:
        assert isinstance(session, Session)
        assert [found for check in LEDGER_CHECKS for found in check(session)] == []
    ledger.close()
