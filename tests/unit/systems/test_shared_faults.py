"""Shared faults count against no subject."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.errors import ArtifactError, ChildFailed, DataError, SettingsError, TransientError, UnknownPlugin
from ratchet.ledger import Ledger, health
from ratchet.ledger.tables import BatchRow, ClaimRow, DamageRow, DeadLetterRow
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings
from ratchet.systems import Lane, NotReady, Outcome, Subject, Verdict, Work
from ratchet.systems.controller import WaitReason
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.support.rows import verdict
from tests.support.toy_controller import Toys

CONTROL = ControlSettings(lease_s=10.0, max_backoff_s=0.002)
DIGEST = "ab" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, control=CONTROL)


def fails_with(error: Exception) -> Callable[[Work], Outcome]:
    def do(_work: Work) -> Outcome:
        raise error

    return do


def about(artifact: str) -> ArtifactError:
    error = ArtifactError(f"{artifact[:4]} is damaged")
    error.artifact = artifact
    return error


def dead(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return list(session.scalars(select(DeadLetterRow.subject_id).order_by(DeadLetterRow.id)))


def waits(toys: Toys) -> list[str]:
    return [trouble.why for trouble in toys.controller.wait_reasons.values()]


def run_often(toys: Toys, times: int = 30) -> None:
    for _ in range(times):
        toys.controller.reschedule.wait(0.005)
        toys.run()


@pytest.mark.parametrize(
    "error",
    [SettingsError("admin-token is empty"), UnknownPlugin("no arm 'odd'"), about(DIGEST)],
    ids=["setting", "plugin", "artifact"],
)
def test_a_shared_fault_never_makes_a_dead_letter(ledger: Ledger, settings: Settings, error: Exception) -> None:
    toys = Toys(ledger, settings, ["a", "b"], fails_with(error))
    run_often(toys)
    assert dead(ledger) == []
    assert [(claim.failures, claim.owner) for claim in toys.claims()] == [(0, None), (0, None)]
    assert [why for why in waits(toys) if str(error) in why]
    toys.do = lambda _work: Verdict("fine", "at last")
    run_often(toys, 3)
    assert [row.outcome for row in toys.verdicts()] == ["fine", "fine"]
    assert toys.controller.wait_reasons == {}


def test_a_damaged_artifact_is_recorded_once_and_resolved_by_the_verdict(ledger: Ledger, settings: Settings) -> None:
    toys = Toys(ledger, settings, ["a"], fails_with(about(DIGEST)))
    run_often(toys, 5)
    with ledger.read() as session:
        (found,) = health.damages_since(session, 0.0)
    assert (found.artifact, found.system, found.subject_id) == (DIGEST, "toys", "a")
    assert found.error == "abab is damaged"
    toys.do = lambda _work: Verdict("fine", "at last")
    run_often(toys, 3)
    with ledger.read() as session:
        assert health.damages_since(session, 0.0) == []
        assert session.scalars(select(DamageRow.resolved_at)).one() is not None


def test_lasting_damage_is_recorded_each_time_it_is_met(ledger: Ledger, settings: Settings) -> None:
    toys = Toys(ledger, settings, ["a"], fails_with(about(DIGEST)))
    run_often(toys, 2)
    with ledger.write() as tx:
        tx.session.query(DamageRow).update(
            dict.fromkeys(("found_at", "last_seen_at"), tx.now - 2 * health.DAMAGE_SHOWN_S)
        )
    run_often(toys, 2)
    with ledger.read() as session:
        assert len(health.damages_since(session, ledger.now() - health.DAMAGE_SHOWN_S)) == 1


def test_a_damaged_artifact_of_its_own_counts_against_a_batch(ledger: Ledger, settings: Settings) -> None:
    with ledger.write() as tx:
        row = BatchRow(id="a", origin="user", state="submitted", priority=1, submitted_artifact=DIGEST, provenance={})
        row.submitted_examples, row.submitted_at = 1, tx.now
        tx.session.add(row)

    class Batches(Toys):
        def find(self, _session: Session, _settings: Settings) -> Sequence[Subject]:
            return [Subject("batch", "a")]

    run_often(Batches(ledger, settings, [], fails_with(about(DIGEST))))
    assert dead(ledger) == ["a"]


def test_a_reconciled_subject_never_becomes_a_dead_letter(ledger: Ledger, settings: Settings) -> None:
    toys = Toys(ledger, settings, ["a"], fails_with(ValueError("odd")), reconciled=("toy",))
    run_often(toys)
    assert dead(ledger) == []
    assert waits(toys) == ["toy a: ValueError: odd"]


def test_a_reconciled_subject_survives_deaths_of_its_processes(ledger: Ledger, settings: Settings) -> None:
    dies = fails_with(ChildFailed("killed by SIGKILL", killed=True))
    toys = Toys(ledger, settings, ["a"], dies, reconciled=("toy",))
    run_often(toys, 10)
    with ledger.write() as tx:
        tx.session.query(ClaimRow).update({"kills": 99})
        tx.session.add(verdict("toys", "toy", "other", "fine", tx.now))
    run_often(toys, 5)
    assert dead(ledger) == []


def test_a_ledger_lost_while_recording_a_failure_releases_the_claim_later(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = about(DIGEST)
    asked = []

    def away(*_: object) -> set[str]:
        asked.append(True)
        if len(asked) == 1:
            raise TransientError("the ledger is away")
        return set()

    monkeypatch.setattr(health, "artifacts_of", away)
    toys = Toys(ledger, settings, ["a"], fails_with(error))
    toys.run()
    assert [(claim.owner, claim.failures) for claim in toys.claims()] == [(None, 0)]
    assert toys.controller.held._held == {}


def test_after_consecutive_dead_letters_the_remaining_subjects_are_kept(ledger: Ledger, settings: Settings) -> None:
    toys = Toys(ledger, settings, [f"t{number}" for number in range(6)], fails_with(ValueError("shared")))
    run_often(toys)
    assert len(dead(ledger)) == 3
    assert len(toys.claims()) == 3
    assert all("none has succeeded" in why for why in waits(toys))
    toys.do = lambda _work: Verdict("fine", "at last")
    run_often(toys, 3)
    assert len(toys.verdicts()) == 3
    assert toys.controller.wait_reasons == {}


def test_an_error_about_its_subject_counts_against_it(ledger: Ledger, settings: Settings) -> None:
    subjects = [f"t{number}" for number in range(6)]
    run_often(Toys(ledger, settings, subjects, fails_with(DataError("rows.jsonl:3: is no JSON"))))
    assert sorted(dead(ledger)) == subjects


def test_a_bad_subject_among_good_ones_becomes_a_dead_letter(ledger: Ledger, settings: Settings) -> None:
    def do(work: Work) -> Outcome:
        if work.subject.id.startswith("bad"):
            raise ValueError("its own fault")
        return Verdict("fine", "")

    bad = [f"bad{number}" for number in range(5)]
    toys = Toys(ledger, settings, [*bad, *(f"good{number}" for number in range(5))], do)
    run_often(toys)
    assert sorted(dead(ledger)) == bad


def test_an_error_of_find_makes_the_worker_wait_with_the_reason(ledger: Ledger, settings: Settings) -> None:
    searched, troubles = [], []

    class Searching(Toys):
        def find(self, session: Session, settings: Settings) -> Sequence[Subject]:
            searched.append(True)
            troubles.extend(waits(self))
            if len(searched) < 3:
                raise OSError(40, "Too many levels of symbolic links")
            return super().find(session, settings)

    toys = Searching(ledger, settings, ["a"])
    assert toys.run() == 1
    assert troubles[0].startswith("toys cannot search for subjects: OSError: [Errno 40]")
    assert toys.controller.wait_reasons == {}


def test_shared_dependencies_are_checked_before_a_claim(ledger: Ledger, settings: Settings) -> None:
    checked = []

    def check(_settings: Settings, ledger: Ledger, _artifacts: ArtifactStore) -> bool:
        with ledger.read() as session:
            checked.append(session.scalars(select(ClaimRow)).all())
        if len(checked) < 3:
            raise TransientError("the server is away")
        return False

    toys = Toys(ledger, settings, ["a"], check=check)
    assert toys.run() == 1
    assert checked == [[], [], []]
    assert toys.claims() == []


def test_nothing_is_checked_without_pending_work(ledger: Ledger, settings: Settings) -> None:
    def check(*_: object) -> bool:
        raise AssertionError("for nobody")

    assert Toys(ledger, settings, [], check=check).run() == 0


def test_find_is_called_again_after_a_check_that_repaired_something(ledger: Ledger, settings: Settings) -> None:
    toys = Toys(ledger, settings, ["a"], check=lambda *_: bool(toys.subjects.append("b")) or len(toys.subjects) == 2)
    toys.subjects = ["a"]
    toys.do = lambda work: Verdict("fine", "") if work.subject.id == "b" else NotReady("b first")
    toys.run()
    assert set(toys.seen) == {"a", "b"}


def test_a_lane_without_a_function_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="do of the lane 'look' is None, which is not a function"):
        Lane("look", (), lambda _session, _settings: [], None)  # type: ignore[arg-type]


def test_a_work_folder_for_which_the_disk_has_no_room_is_waited_out_and_its_claim_released(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys, mkdir, owners = Toys(ledger, settings, ["a"]), Path.mkdir, list[str | None]()

    def full_once(folder: Path, *args: Any, **options: Any) -> None:
        if toys.worker in folder.parts and not owners:
            owners.extend(claim.owner for claim in toys.claims())
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(folder, *args, **options)

    monkeypatch.setattr(Path, "mkdir", full_once)
    assert toys.run() == 1
    assert owners == [toys.worker]
    assert (toys.claims(), dead(ledger)) == ([], [])


def test_a_disk_that_is_full_during_the_work_counts_against_no_subject(ledger: Ledger, settings: Settings) -> None:
    errors = [OSError(errno.ENOSPC, "No space left on device", "/tmp/rows"), OSError(errno.EDQUOT, "Quota exceeded")]

    def do(_work: Work) -> Outcome:
        if errors:
            raise errors.pop()
        return Verdict("fine", "")

    toys = Toys(ledger, settings, ["a"], do)
    assert toys.run() == 1
    assert toys.seen == ["a"] * 3
    assert not toys.controller.reschedule.is_set()  # as it is after each failure that is counted
    assert (toys.claims(), dead(ledger)) == ([], [])


def test_a_lane_may_start_waiting_while_another_checks_its_reason(ledger: Ledger, settings: Settings) -> None:
    toys = Toys(ledger, settings, ["a"])
    reasons = toys.controller.wait_reasons

    class Crowded(str):
        """A lane's name; comparing it lets another lane add a reason, as a switch of threads does."""

        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            reasons.setdefault(("other", None), WaitReason("the disk is full", 0.0))
            return str.__eq__(self, other)

    reasons[Crowded("play"), Subject("toy", "gone")] = WaitReason("no such artifact", 0.0)
    assert toys.run() == 1
    assert list(reasons) == [("other", None)]
