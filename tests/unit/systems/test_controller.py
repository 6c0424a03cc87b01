from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import ChildFailed, Stopping, TransientError
from ratchet.events import Event
from ratchet.events.catalogue import BatchQueued
from ratchet.leases.gpus import acquire_gpu
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.ledger import next_counter
from ratchet.ledger.tables import ClaimRow, CounterRow, DeadLetterRow
from ratchet.settings import Settings
from ratchet.systems import NotReady, Outcome, Verdict, Work, claims
from sqlalchemy import select

from tests.support.ledgers import pretend_newer
from tests.support.toy_controller import Toys, decided


def test_all_found_subjects_are_decided_once_in_order(ledger: Ledger, settings: Settings) -> None:
    toys = Toys(ledger, settings, ["b", "a"])
    assert toys.run() == 2
    assert toys.run() == 0
    assert toys.seen == ["b", "a"]
    assert [(row.subject_id, row.outcome, row.numbers) for row in toys.verdicts()] == [
        ("b", "fine", {"n": 1}),
        ("a", "fine", {"n": 1}),
    ]
    assert toys.claims() == []


def test_a_verdict_its_effects_and_its_events_commit_together(ledger: Ledger, settings: Settings) -> None:
    heard: list[Event] = []
    ledger.after_commit = heard.extend
    toys = Toys(ledger, settings, ["a"])
    toys.run(cause="event-1")
    assert toys.acted("a") == 1
    assert [(event.name, event.cause) for event in heard] == [("batch.queued", "event-1")]
    assert toys.verdicts()[0].cause == "event-1"


def test_failing_effects_leave_no_verdict_and_count_as_a_failure(ledger: Ledger, settings: Settings) -> None:
    def broken(_tx: Transaction) -> None:
        raise ZeroDivisionError("no effect")

    toys = Toys(ledger, settings, ["a"], lambda _work: Verdict("fine", "", effects=broken))
    assert toys.run() == 0
    assert toys.verdicts() == []
    assert [row.failures for row in toys.claims()] == [1]


def test_not_ready_is_neither_verdict_nor_failure(ledger: Ledger, settings: Settings) -> None:
    heard: list[Event] = []
    ledger.after_commit = heard.extend
    toys = Toys(ledger, settings, ["a", "b"], lambda _work: NotReady("its wheels", events=(BatchQueued(batch_id="w"),)))
    assert toys.run() == 0
    assert toys.seen == ["a", "b"]
    assert (toys.verdicts(), toys.claims()) == ([], [])
    assert len(heard) == 2
    toys.do = decided
    assert toys.run() == 2


def test_a_failure_is_counted_and_the_others_go_on(ledger: Ledger, settings: Settings) -> None:
    def fussy(work: Work) -> Outcome:
        if work.subject.id == "bad":
            raise ValueError("bad toy")
        return decided(work)

    toys = Toys(ledger, settings, ["bad", "good"], fussy)
    assert toys.run() == 1
    assert toys.controller.reschedule.is_set()
    while not _letters(ledger):
        toys.run()
    assert toys.seen.count("bad") == settings.control.max_failures
    assert [letter.error for letter in _letters(ledger)] == ["ValueError: bad toy"]
    assert toys.run() == 0
    assert [row.subject_id for row in toys.verdicts()] == ["good"]


def test_a_killed_child_counts_as_a_death(ledger: Ledger, settings: Settings) -> None:
    def dying(_work: Work) -> Outcome:
        raise ChildFailed("SIGKILL", killed=True)

    toys = Toys(ledger, settings, ["a"], dying)
    toys.run()
    assert [(row.failures, row.kills) for row in toys.claims()] == [(0, 1)]


def test_a_transient_error_is_retried_and_never_counted(ledger: Ledger, settings: Settings) -> None:
    troubles = iter(range(10))

    def troubled(work: Work) -> Outcome:
        if next(troubles, None) is not None:
            raise TransientError("the disk is full")
        assert (work.claim.failures, work.claim.kills) == (0, 0)
        return decided(work)

    toys = Toys(ledger, settings, ["a"], troubled)
    assert toys.run() == 1
    assert len(toys.seen) == 11
    assert _letters(ledger) == []


def test_a_late_commit_is_refused(ledger: Ledger, settings: Settings) -> None:
    def overtaken(work: Work) -> Outcome:
        with ledger.write() as tx:
            row = claims.require(tx, work.claim)
            row.expires_at = tx.now - 1.0
        with ledger.write() as tx:
            assert claims.take(tx, "toys", work.subject, "toys@there+0", 1000.0)
        return decided(work)

    toys = Toys(ledger, settings, ["a"], overtaken)
    assert toys.run() == 0
    assert (toys.verdicts(), toys.acted("a")) == ([], 0)
    assert [row.owner for row in toys.claims()] == ["toys@there+0"]


def test_work_that_lost_its_claim_is_ended(ledger: Ledger, settings: Settings) -> None:
    rounds: list[int] = []

    def overtaken(work: Work) -> Outcome:
        with ledger.write() as tx:
            claims.require(tx, work.claim).token += 1
        while True:
            work.progress(f"round {len(rounds)}")
            rounds.append(1)
            threading.Event().wait(0.01)

    toys = Toys(ledger, settings, ["a"], overtaken)
    assert toys.run() == 0
    assert rounds
    assert [row.failures for row in toys.claims()] == [0]


def test_a_stale_intermediate_write_is_refused(ledger: Ledger, settings: Settings) -> None:
    def overtaken(work: Work) -> Outcome:
        work.commit(lambda tx: next_counter(tx.session, "early") and None)
        with ledger.write() as tx:
            claims.require(tx, work.claim).token += 1
        work.commit(lambda tx: next_counter(tx.session, "late") and None)
        return decided(work)

    toys = Toys(ledger, settings, ["a"], overtaken)
    assert toys.run() == 0
    with ledger.read() as session:
        assert {row.name for row in session.scalars(select(CounterRow))} == {"early", "fencing"}


def test_a_stop_releases_the_subject_without_counting_a_failure(ledger: Ledger, settings: Settings) -> None:
    def stopping(work: Work) -> Outcome:
        toys.controller.stop.set()
        work.progress("on")
        return decided(work)

    toys = Toys(ledger, settings, ["a", "b"], stopping)
    with pytest.raises(Stopping):
        toys.run()
    assert (toys.seen, toys.verdicts(), toys.claims()) == (["a"], [], [])


def test_a_work_folder_belongs_to_one_claim_and_is_deleted_with_it(ledger: Ledger, settings: Settings) -> None:
    folders: list[Path] = []

    def littering(work: Work) -> Outcome:
        (work.folder / "litter").write_text("x")
        folders.append(work.folder)
        if len(folders) == 1:
            raise ValueError
        return decided(work)

    toys = Toys(ledger, settings, ["a"], littering)
    while not toys.run():
        pass
    assert len(set(folders)) == 2
    assert not any(folder.exists() for folder in folders)


def test_several_workers_decide_each_subject_once(ledger: Ledger, settings: Settings) -> None:
    subjects = [str(number) for number in range(20)]
    crowd = [Toys(ledger, settings, subjects, worker=f"toys@here+{slot}") for slot in range(3)]
    threads = [threading.Thread(target=toys.run) for toys in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row.subject_id for row in crowd[0].verdicts()) == sorted(subjects)
    assert all(crowd[0].acted(subject) == 1 for subject in subjects)


def test_the_claim_is_renewed_during_work(ledger: Ledger, settings: Settings) -> None:
    def watching(work: Work) -> Outcome:
        work.progress("half way")
        while True:
            with ledger.read() as session:
                row = session.scalars(select(ClaimRow)).one()
            if row.heartbeat_at > row.claimed_at and row.progress:
                assert (row.note, row.expires_at) == ("half way", row.heartbeat_at + settings.control.lease_s)
                return decided(work)

    toys = Toys(ledger, settings, ["a"], watching)
    assert toys.run() == 1


@pytest.mark.parametrize("loss", ["unreadable", float("nan")])
def test_a_status_that_cannot_be_read_or_stored_leaves_the_claim_renewed(
    ledger: Ledger, settings: Settings, loss: Any
) -> None:
    often = settings.control.model_copy(update={"lease_s": 0.3})

    def status() -> dict[str, Any]:
        if loss == "unreadable":
            raise PermissionError("previews.jsonl")
        return {"loss": loss}

    def watching(work: Work) -> Outcome:
        work.pulse.status = status
        until = ledger.now() + 20.0
        while ledger.now() < until:
            with ledger.read() as session:
                row = session.scalars(select(ClaimRow)).one()
            if row.heartbeat_at > row.claimed_at:
                assert row.status == {}
                return decided(work)
        return NotReady("its renewal")

    toys = Toys(ledger, settings.model_copy(update={"control": often}), ["a"], watching)
    assert toys.run() == 1
    assert toys.controller.watchdog.check() is None


def test_the_renewal_interval_follows_the_setting(ledger: Ledger, settings: Settings) -> None:
    """Six times in a lease: five renewals take less than the usual lease of a minute, let alone five of its sixths."""
    often = settings.control.model_copy(update={"lease_s": 3.0})
    seen: set[float] = set()
    left_s: list[float] = []

    def watching(work: Work) -> Outcome:
        until = ledger.now() + 30.0
        while len(seen) < 5 and ledger.now() < until:
            with ledger.read() as session:
                row = session.scalars(select(ClaimRow)).one()
            seen.add(row.heartbeat_at)
            left_s.append(row.expires_at - row.heartbeat_at)
        return decided(work)

    Toys(ledger, settings.model_copy(update={"control": often}), ["a"], watching).run()
    assert len(seen) == 5
    assert left_s == pytest.approx([3.0] * len(left_s), abs=0.01)


def _letters(ledger: Ledger) -> list[DeadLetterRow]:
    with ledger.read() as session:
        return list(session.scalars(select(DeadLetterRow)))


def test_a_model_child_runs_on_the_gpu_memory_that_is_leased_for_it(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    placement = settings.placement.model_copy(update={"gpus_gb": (4, 8), "vram_gb": {"toys": 6}})
    card = settings.model_copy(update={"placement": placement})

    def do(work: Work) -> Outcome:
        told = work.child("tests.support.gpu_child:told", {"word": "hello"})
        return Verdict(told["devices"], told["word"])

    toys = Toys(ledger, card, ["a"], do)
    toys.run()
    assert [(row.outcome, row.reason) for row in toys.verdicts()] == [("1", "hello")]
    leased = [path.name for path in (settings.lease_folder / "gpu").iterdir() if path.read_text().endswith(" toys")]
    assert len([name for name in leased if name.startswith("gpu-1-")]) == 8
    acquire_gpu(8, settings.lease_folder, {1: 8}, timeout_s=0.01).close()


def test_failures_on_a_ledger_migrated_by_a_newer_version_count_against_no_subject(
    ledger: Ledger, settings: Settings
) -> None:
    def stumble(work: Work) -> Outcome:
        pretend_newer(ledger)
        work.stop.set()
        raise ValueError("no such column")

    toys = Toys(ledger, settings, ["one"], stumble)
    toys.run()
    toys.controller.held.retry_releases()
    assert toys.seen == ["one"]
    assert [(row.owner, row.failures) for row in toys.claims()] in ([], [(None, 0)])
