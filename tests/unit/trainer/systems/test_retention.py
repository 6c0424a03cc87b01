from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.artifacts import ArtifactStore
from ratchet.errors import ClaimLost, TransientError
from ratchet.ledger.deployments import serving
from ratchet.ledger.lineage import lineage
from ratchet.ledger.retention import NEWEST_KEPT
from ratchet.ledger.suites import current
from ratchet.ledger.tables import (
    ChallengeRow,
    CheckpointRow,
    EvaluationRequestRow,
    EvaluationRow,
    OutboxRow,
    TaskRow,
    VerdictRow,
)
from ratchet.removed import removed_after
from ratchet.systems import Subject, Work, claims, registry
from sqlalchemy import select, update
from trainer.planning import open_segment
from trainer.retention import (
    STATES_KEPT,
    StoredCheckpoint,
    apply_retention,
    make_room,
    remove_old_history,
    select_for_deletion,
)

from tests.support.bus import InlineChildren
from tests.support.disk import SmallDisk
from tests.support.home import Home, small_home

KEPT = st.lists(
    st.builds(
        lambda ordinal, size, base: StoredCheckpoint(f"c{ordinal}", ordinal, size, f"c{base}" if base else None),
        st.integers(0, 50),
        st.integers(0, 100),
        st.integers(0, 10),
    ),
    unique_by=lambda kept: kept.ordinal,
    max_size=15,
)


def five(size: int = 10) -> list[StoredCheckpoint]:
    return [StoredCheckpoint(f"c{ordinal}", ordinal, size) for ordinal in range(5)]


def test_nothing_is_deleted_within_the_limit() -> None:
    assert select_for_deletion(five(), (), 50) == []


def test_the_oldest_are_deleted_first_and_only_as_needed() -> None:
    assert select_for_deletion(five(), (), 25) == ["c0", "c1", "c2"]


def test_a_protected_checkpoint_stays_and_a_newer_one_is_deleted_instead() -> None:
    assert select_for_deletion(five(), {"c0", "c2"}, 30) == ["c1", "c3"]


def test_the_newest_stays_however_large() -> None:
    assert select_for_deletion([StoredCheckpoint("c7", 7, 1_000)], (), 1) == []
    assert select_for_deletion([], (), 1) == []


@given(KEPT, st.sets(st.integers(0, 50)), st.integers(0, 800))
def test_protected_and_newest_are_never_deleted_and_no_deletion_is_needless(
    kept: list[StoredCheckpoint], chosen: set[int], limit: int
) -> None:
    protected = {f"c{ordinal}" for ordinal in chosen}
    gone = select_for_deletion(kept, protected, limit)
    assert not protected & set(gone)
    if kept:
        assert max(kept, key=lambda k: k.ordinal).id not in gone
    sizes = {k.id: k.size_bytes for k in kept}
    left = sum(sizes.values()) - sum(sizes[id] for id in gone)
    if gone:
        assert left + sizes[gone[-1]] > limit
    stay = [k for k in kept if k.id not in gone]
    bases = {k.base for k in stay}
    assert not bases & set(gone), "a base that is still needed"
    could_go = set(sizes) - protected - set(gone) - bases - {max(kept, key=lambda k: k.ordinal).id if kept else ""}
    assert left <= limit or not could_go


GB = 1_000_000_000


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "run", retention={"checkpoints_gb": 2.5}) as home:
        yield home


def claimed(home: Home, system: str, subject: Subject) -> Work:
    with home.ledger.write() as tx:
        claim = claims.take(tx, system, subject, f"{system}@test+0", 60.0)
    assert claim is not None
    folder = home.settings.work_folder / "test"
    return Work(
        subject, claim, None, home.settings, home.ledger, home.artifacts, InlineChildren(), folder, folder,
        threading.Event(), 90.0,
    )  # fmt: skip


@pytest.fixture
def work(home: Home) -> Work:
    return claimed(home, "training", Subject("batch", "b"))


def six(home: Home) -> list[str]:
    """Six checkpoints with a recorded size of one gigabyte each."""
    return [home.add_checkpoint(size_bytes=GB) for _ in range(6)]


def on_disk(home: Home) -> dict[str, bool]:
    with home.ledger.read() as session:
        rows = session.query(CheckpointRow).order_by(CheckpointRow.ordinal).all()
    assert all((row.state == "saved") == home.artifacts.exists(row.artifact) for row in rows)
    return {row.id: row.state == "saved" for row in rows}


def test_retention_deletes_the_oldest_and_keeps_champion_and_head(home: Home, work: Work) -> None:
    ids = six(home)
    apply_retention(work)
    assert on_disk(home) == {home.base_id(): True, **dict.fromkeys(ids[:4], False), **dict.fromkeys(ids[4:], True)}


def test_retention_keeps_rollback_target_live_and_referenced_checkpoints(home: Home, work: Work) -> None:
    ids = six(home)
    with home.ledger.write() as tx:
        row = serving(tx.session)
        row.desired_id, row.previous_id, row.actual_id = ids[2], ids[1], ids[0]
        suite = current(tx.session, "confirm").id
        tx.session.add(
            EvaluationRequestRow(checkpoint_id=ids[3], suite_id=suite, requested_by="test", created_at=tx.now)
        )
    claimed(home, "testing", Subject("request", f"{ids[4]}/{suite}"))
    apply_retention(work)
    assert all(on_disk(home)[id] for id in ids)


@pytest.mark.parametrize("kind", ["general", "user"])
def test_the_base_stays_where_a_general_task_measures_the_drift_from_it(home: Home, work: Work, kind: str) -> None:
    base, ids = home.base_id(), six(home)
    with home.ledger.write() as tx:
        serving(tx.session).desired_id = ids[-1]
        tx.session.get_one(CheckpointRow, base).size_bytes = GB
        fields = {"metric": "loss", "grader": None, "pattern": None, "source": "", "held_out": {}}
        numbers = {"rows": 60, "held_rows": 60, "created_at": tx.now, "updated_at": tx.now}
        tx.session.add(TaskRow(name=kind, kind=kind, **fields, **numbers))
    apply_retention(work)
    assert on_disk(home)[base] == (kind == "general")


def test_an_answered_request_protects_nothing(home: Home, work: Work) -> None:
    ids = six(home)
    with home.ledger.write() as tx:
        suite = current(tx.session, "confirm").id
        for id in ids[:3]:
            tx.session.add(
                EvaluationRequestRow(checkpoint_id=id, suite_id=suite, requested_by="test", created_at=tx.now)
            )
    for id in ids[:2]:
        home.add_record(id, "confirm", lambda _item: True)
    apply_retention(work)
    kept = on_disk(home)
    assert [kept[id] for id in ids[:3]] == [False, False, True]


def test_a_claimed_checkpoint_stays_until_the_claim_is_gone(home: Home, work: Work) -> None:
    ids = six(home)
    held = claimed(home, "testing", Subject("checkpoint", ids[0]))
    apply_retention(work)
    assert on_disk(home)[ids[0]]
    with home.ledger.write() as tx:
        claims.finish(tx, held.claim)
    home.add_checkpoint(size_bytes=GB)
    apply_retention(work)
    assert not on_disk(home)[ids[0]]


def test_an_open_challenge_protects_its_challenger_and_an_outdated_one_does_not(home: Home, work: Work) -> None:
    ids = six(home)
    with home.ledger.write() as tx:
        suite = current(tx.session, "confirm").id
        for challenger, champion in ((ids[0], home.base_id()), (ids[1], ids[5])):
            tx.session.add(
                ChallengeRow(
                    champion_id=champion,
                    challenger_id=challenger,
                    k=1,
                    suite_id=suite,
                    outcome=None,
                    numbers={},
                    created_at=tx.now,
                )
            )
    apply_retention(work)
    assert on_disk(home)[ids[0]]
    assert not on_disk(home)[ids[1]]


def state(home: Home, checkpoint_id: str) -> str:
    """Give the checkpoint an optimizer's state."""
    artifact = home.artifacts.publish_lines([checkpoint_id], "state", {}).id
    with home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, checkpoint_id).state_artifact = artifact
    return artifact


def test_a_state_counts_as_much_as_a_checkpoint(home: Home, work: Work) -> None:
    ids = [home.add_checkpoint(size_bytes=1_000) for _ in range(3)]
    artifact = home.artifacts.publish_lines(["x" * 3_000_000], "state", {}).id
    with home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, ids[2]).state_artifact = artifact
    retention = home.settings.retention.model_copy(update={"checkpoints_gb": 0.002})
    work.settings = home.settings.model_copy(update={"retention": retention})
    apply_retention(work)
    assert [on_disk(home)[id] for id in ids] == [False, False, True]


def test_the_base_of_adapters_stays_as_long_as_one_of_them_does(home: Home, work: Work) -> None:
    base, *adapters, head = six(home)
    with home.ledger.write() as tx:
        required = tx.session.get_one(CheckpointRow, base).artifact
        for place, id in enumerate(adapters):
            folder = home.settings.work_folder / "adapters"
            folder.mkdir(parents=True)
            (folder / "adapter_model.safetensors").write_text(f"adapters {place}")
            published = home.artifacts.publish(folder, "checkpoint", {}, consume=True, requires=[required])
            tx.session.get_one(CheckpointRow, id).artifact = published.id
    apply_retention(work)
    kept = on_disk(home)
    assert (kept[base], kept[adapters[-1]], kept[head]) == (True, False, True)
    home.add_checkpoint(size_bytes=GB)
    apply_retention(work)
    assert not on_disk(home)[base]


def test_a_disk_that_is_nearly_full_keeps_fewer_than_the_limit(home: Home, work: Work) -> None:
    ids = [home.add_checkpoint(size_bytes=1_000) for _ in range(4)]
    states = [state(home, id) for id in ids]
    apply_retention(work, needed_bytes=shutil.disk_usage(home.settings.home).total + 10 * GB)
    assert [on_disk(home)[id] for id in ids] == [False, False, False, True]
    assert [home.artifacts.exists(artifact) for artifact in states] == [False, False, False, True]


def test_the_newest_two_states_are_kept(home: Home, work: Work) -> None:
    ids = [home.add_checkpoint(size_bytes=1) for _ in range(4)]
    states = [state(home, id) for id in ids]
    apply_retention(work)
    assert [home.artifacts.exists(artifact) for artifact in states] == [False, False, True, True]
    assert all(on_disk(home).values())
    with home.ledger.read() as session:
        assert [session.get_one(CheckpointRow, id).state_artifact for id in ids] == [None, None, *states[2:]]


def test_deleting_a_checkpoint_deletes_its_state(home: Home, work: Work) -> None:
    ids = six(home)
    doomed = state(home, ids[0])
    apply_retention(work)
    assert not home.artifacts.exists(doomed)


def test_a_stale_claim_deletes_nothing(home: Home, work: Work) -> None:
    ids = six(home)
    with home.ledger.write() as tx:
        claims.finish(tx, work.claim)
    with pytest.raises(ClaimLost):
        apply_retention(work)
    assert all(on_disk(home)[id] for id in ids)


def test_bytes_shared_with_a_checkpoint_that_stays_are_kept(home: Home, work: Work) -> None:
    ids = six(home)
    with home.ledger.write() as tx:
        old, new = (tx.session.get_one(CheckpointRow, id) for id in (ids[0], ids[5]))
        old.artifact = new.artifact
    apply_retention(work)
    with home.ledger.read() as session:
        assert session.get_one(CheckpointRow, ids[0]).state == "deleted"
        assert home.artifacts.exists(session.get_one(CheckpointRow, ids[5]).artifact)
    assert isinstance(home.artifacts, ArtifactStore)


def test_retention_follows_the_settings(tmp_path: Path) -> None:
    with small_home(tmp_path / "told", retention={"checkpoints_gb": 3.5}) as home:
        states = [state(home, id) for id in six(home)]
        apply_retention(claimed(home, "training", Subject("batch", "b")))
        assert sum(on_disk(home).values()) == 1 + 3
        assert sum(home.artifacts.exists(artifact) for artifact in states) == STATES_KEPT


def test_no_segment_is_trained_without_room_to_save_it(
    start_training: Callable[..., Any], small_disk: SmallDisk
) -> None:
    disk = small_disk(48_000_000)
    training = start_training(home=disk / "run")
    work = claimed(training.home, "training", Subject("batch", training.queue(1)))
    start = open_segment(work)
    (disk / "other").write_bytes(b"\0" * 30_000_000)
    with pytest.raises(TransientError, match="the next checkpoint with its training state takes"):
        make_room(work, start)
    (disk / "other").unlink()
    make_room(work, start)


def test_a_disk_with_room_for_a_few_checkpoints_never_fills_up(
    start_training: Callable[..., Any], small_disk: SmallDisk
) -> None:
    disk = small_disk(32_000_000)
    training = start_training(home=disk / "run", hyperparams={"save_steps": 1})
    batches = [training.queue(seed) for seed in (1, 2)]
    training.sweep()
    assert training.home.verdicts("training") == dict.fromkeys(batches, "trained")
    kept = [row.state == "saved" for row in training.checkpoints()]
    assert (kept[0], kept[-1], len(kept)) == (False, True, 16)


def with_history(home: Home, days_old: int, undecided: str = "") -> tuple[str, str]:
    """Two tested checkpoints, and so many after them that they are not among the newest; all are that old.

    Returns the artifacts of their records. The first one is the champion; on the second all systems have decided, but
    for ``undecided``.
    """
    first, second = (home.add_checkpoint() for _ in range(2))
    home.add_record(first, "eval", lambda item: item.level == 1)
    home.add_record(second, "eval", lambda _item: False)
    with home.ledger.write() as tx:
        serving(tx.session).desired_id = first
        columns = {"step": 0, "tokens": 0, "artifact": "", "size_bytes": 0, "state": "deleted", "created_at": tx.now}
        for n in range(3, 3 + NEWEST_KEPT):
            tx.session.add(CheckpointRow(id=f"c{n}", ordinal=n, weights=f"{n}", **columns))
        lineage(tx.session).head_id = f"c{n}"
        at = tx.now - days_old * 86_400
        tx.session.execute(update(EvaluationRow).values(created_at=at))
        tx.session.execute(update(OutboxRow).values(created_at=at, relayed_at=at))
        told = {"subject_kind": "checkpoint", "subject_id": second, "outcome": "", "reason": "", "numbers": {}}
        told |= {"worker": "", "created_at": at, "took_s": 0.0}
        for system in registry.known(tx.session):
            if system.per_checkpoint and system.name != undecided:
                tx.session.add(VerdictRow(system=system.name, **told))
        for n in range(5):
            event = {"name": "queue.low", "cause": None, "body": "{}", "created_at": at, "relayed_at": at}
            tx.session.add(OutboxRow(event_id=f"old-{n}", **event))
    with home.ledger.read() as session:
        found = dict(session.execute(select(EvaluationRow.checkpoint_id, EvaluationRow.artifact)).all())
    return found[first], found[second]


@pytest.mark.parametrize("days", [0, 10, 30])
def test_old_records_go_after_as_many_days_as_the_setting_says(home: Home, work: Work, days: int) -> None:
    champions, other = with_history(home, days_old=20)
    set_retention(work, records_days=days)
    remove_old_history(work)
    is_removed = days == 10
    assert home.artifacts.exists(champions)
    assert home.artifacts.exists(other) is not is_removed
    with home.ledger.read() as session:
        named = set(session.scalars(select(EvaluationRow.artifact)))
    assert named == {champions, removed_after(10) if is_removed else other}


@pytest.mark.parametrize("undecided", ["calibration", "deployment"])
def test_answers_stay_until_each_system_has_decided(home: Home, work: Work, undecided: str) -> None:
    _, other = with_history(home, days_old=20, undecided=undecided)
    set_retention(work, records_days=10)
    remove_old_history(work)
    assert home.artifacts.exists(other)


@pytest.mark.parametrize("days", [0, 10, 30])
def test_old_events_go_after_as_many_days_as_the_setting_says(home: Home, work: Work, days: int) -> None:
    with_history(home, days_old=20)
    set_retention(work, events_days=days)
    remove_old_history(work)
    with home.ledger.read() as session:
        left = session.scalars(select(OutboxRow.event_id).where(OutboxRow.event_id.like("old-%"))).all()
    assert len(left) == (1 if days == 10 else 5), "the newest event stays"


def set_retention(work: Work, **changes: int) -> None:
    retention = work.settings.retention.model_copy(update={"events_days": 0, "records_days": 0, **changes})
    work.settings = work.settings.model_copy(update={"retention": retention})
