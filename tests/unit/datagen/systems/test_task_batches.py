"""Batches of the rows that a user has given: when they are made, what they hold, and when they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from datagen.task_refills import AHEAD
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.diversity import SYSTEM as DIVERSITY
from ratchet.data.example import Example
from ratchet.events import Event
from ratchet.ledger.queue import depth, next_batch
from ratchet.ledger.tables import BatchRow, CheckpointRow, DeadLetterRow, TaskRow
from ratchet.systems import Lane, Outcome, System, Work
from ratchet.systems.dead_letters import retry
from ratchet.user_tasks.add import Choice
from ratchet.user_tasks.general import REPLAY
from ratchet.user_tasks.suites import renew_suites
from ratchet.user_tasks.supply import MOST_PASSES, PATIENCE, are_all_used_up

from tests.support.home import Home
from tests.support.rows import verdict
from tests.support.user_tasks import DATA, add_rows, add_task_record, home_of_tasks, task_row

from .queued import batches, rows

BABI, LETTERS = "babi_qa1_100.jsonl", "binary_100.jsonl"
ROOMY = {"queue": {"low_water": 300, "high_water": 3_000, "batch_examples": 1_000}}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Home]:
    with home_of_tasks(tmp_path / "own", {BABI: Choice(task="babi")}, **ROOMY) as home:
        yield home


def turn(home: Home) -> list[Event]:
    return home.bus(CURRICULUM, GENERATION, CORRECTION).sweep()


def of_rows(home: Home) -> list[BatchRow]:
    return [batch for batch in batches(home) if batch.provenance.get("generator") == "rows"]


def set_state(home: Home, batch: str, state: str) -> None:
    with home.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch).state = state


def trained(home: Home, loss: float | None, share_right: float = 0.5) -> str:
    """Train the batch that is next; the checkpoint is measured unless ``loss`` is None."""
    with home.ledger.read() as session:
        batch = next_batch(session)
    assert batch is not None
    checkpoint = home.add_checkpoint(batch.id)
    with home.ledger.write() as tx:
        row = tx.session.get_one(BatchRow, batch.id)
        row.state, row.offset = "trained", row.examples
        tx.session.add(verdict("training", "batch", batch.id, "trained"))
    if loss is not None:
        measured(home, checkpoint, loss, share_right)
    return checkpoint


def measured(home: Home, checkpoint: str, loss: float, share_right: float = 0.5) -> None:
    keys = sorted(str(item.metadata["key"]) for item in home.suite_items("probe"))
    right = set(keys[: round(share_right * len(keys))])
    add_task_record(home, checkpoint, right.__contains__, loss)
    with home.ledger.write() as tx:
        tx.session.add(verdict("testing", "checkpoint", checkpoint, "tested"))
        tx.session.add(verdict("mining", "checkpoint", checkpoint, "nothing mined"))


def test_added_rows_are_stored_and_a_batch_of_them_is_queued_at_once(own: Home) -> None:
    assert [event.name for event in turn(own)] == ["batch.stored", "batch.submitted", "batch.queued"]
    stored, made = batches(own)
    assert (stored.state, stored.task, stored.queued_at) == ("stored", "babi", None)
    assert (made.state, made.task, made.origin, made.quarantined) == ("queued", None, "generation", 0)
    passes = Counter(row.id for row in rows(own, made))
    assert set(passes.values()) == {1}
    assert len(passes) == stored.examples
    assert task_row(own, "babi").passes == pytest.approx(1.0)
    assert own.dead() == []


def test_no_held_out_row_is_in_a_batch(own: Home) -> None:
    turn(own)
    held = {item.question for pool in ("probe", "eval", "confirm") for item in own.suite_items(pool)}
    assert not held & {row.question for batch in of_rows(own) for row in rows(own, batch)}


def test_stored_rows_are_no_part_of_the_queue(own: Home) -> None:
    with own.ledger.read() as session:
        assert depth(session).total == 0
    turn(own)
    with own.ledger.read() as session:
        assert depth(session).total == of_rows(own)[0].examples
    own.bus(DIVERSITY).sweep()
    assert list(own.verdicts("diversity")) == [of_rows(own)[0].id]


def test_one_batch_waits_while_another_is_trained_and_none_is_made_far_ahead_of_the_judges(own: Home) -> None:
    turn(own)
    turn(own)
    assert len(of_rows(own)) == 1
    set_state(own, of_rows(own)[0].id, "training")
    turn(own)
    turn(own)
    assert len(of_rows(own)) == AHEAD == 2
    first = trained(own, None)
    turn(own)
    assert len(of_rows(own)) == 2
    measured(own, first, 2.0)
    turn(own)
    set_state(own, of_rows(own)[1].id, "training")
    turn(own)
    assert len(of_rows(own)) == 3


def test_a_checkpoint_that_will_never_be_measured_does_not_stop_the_passes(own: Home) -> None:
    turn(own)
    for _ in range(2):
        lost = trained(own, None)
        with own.ledger.write() as tx:
            tx.session.add(verdict("testing", "checkpoint", lost, "broken"))
        turn(own)
    assert len(of_rows(own)) == 3


def test_passes_go_on_while_the_loss_falls_and_end_when_it_does_not(own: Home) -> None:
    losses = [2.0, *[2.1] * PATIENCE]
    for loss in losses:
        turn(own)
        trained(own, loss)
    turn(own)
    task = task_row(own, "babi")
    assert task.stale == PATIENCE
    assert len(of_rows(own)) == len(losses)
    assert task.passes < MOST_PASSES
    assert task.best_id == own_checkpoint(own, 1)


def own_checkpoint(home: Home, ordinal: int) -> str:
    with home.ledger.read() as session:
        return session.query(CheckpointRow).filter_by(ordinal=ordinal).one().id


def test_right_answers_count_where_the_loss_rises(own: Home) -> None:
    for loss, share in [(1.0, 0.2), (1.1, 0.5), (1.2, 0.9)]:
        turn(own)
        trained(own, loss, share)
    turn(own)
    assert task_row(own, "babi").stale == 0


def test_a_task_that_always_gains_a_little_ends_at_most_passes(own: Home) -> None:
    turn(own)
    trained(own, 2.0)
    with own.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").passes = MOST_PASSES - 0.5
    turn(own)
    trained(own, 1.0)
    assert [event.name for event in turn(own)] == ["task.measured", "task.used_up"]
    assert len(of_rows(own)) == 2
    assert "taught 20 times" in task_row(own, "babi").reason


def test_a_used_up_task_says_so_with_the_way_out_and_new_rows_bring_it_back(own: Home, tmp_path: Path) -> None:
    nearly_at_its_end(own)
    trained(own, 1.0)
    heard = turn(own)
    assert [event.name for event in heard] == ["task.measured", "task.used_up"]
    task = task_row(own, "babi")
    assert task.state == "used_up"
    assert "3 checkpoints were no better" in task.reason
    assert "`ratchet data add FILE --task babi`" in task.reason
    assert "generation.sources" in task.reason
    with own.ledger.read() as session:
        assert are_all_used_up(session, own.settings)
    assert turn(own) == []
    more = tmp_path / "more.jsonl"
    more.write_text("".join(new_row(number).to_line() + "\n" for number in range(40)))
    add_rows(own, more, Choice(task="babi"))
    with own.ledger.read() as session:
        assert not are_all_used_up(session, own.settings)
    turn(own)
    task = task_row(own, "babi")
    assert (task.state, task.reason, task.stale) == ("active", "", 0)
    assert any(row.question.startswith("Room") for row in rows(own, of_rows(own)[-1]))


def test_a_used_up_task_that_is_judged_in_another_way_can_be_used_up_again(own: Home) -> None:
    nearly_at_its_end(own)
    trained(own, 1.0)
    turn(own)
    assert task_row(own, "babi").state == "used_up"
    with own.ledger.write() as tx:
        task = tx.session.get_one(TaskRow, "babi")
        task.state, task.reason, task.version = "active", "", task.version + 1
    turn(own)
    assert task_row(own, "babi").state == "used_up"


def test_a_task_of_which_the_gate_stores_no_row_is_used_up_with_what_the_gate_said(tmp_path: Path) -> None:
    short = {"hyperparams": {"max_length": 8}}
    with home_of_tasks(tmp_path / "long", {BABI: Choice(task="babi")}, **ROOMY, **short) as home:
        assert [event.name for event in turn(home)] == ["batch.rejected", "task.used_up"]
        task = task_row(home, "babi")
        assert task.state == "used_up"
        assert "too_long" in task.reason
        assert "`ratchet data add FILE --task babi`" in task.reason
        measured(home, home.base_id(), 1.0)
        turn(home)
        with home.ledger.read() as session:
            assert are_all_used_up(session, home.settings)


def test_a_task_whose_only_batch_is_skipped_at_the_gate_is_used_up(own: Home) -> None:
    set_state(own, batches(own)[0].id, "skipped")
    assert [event.name for event in turn(own)] == ["task.used_up"]
    assert "none of its rows was stored" in task_row(own, "babi").reason


def test_a_used_up_task_whose_new_rows_are_all_refused_stays_so_and_says_why(own: Home, tmp_path: Path) -> None:
    nearly_at_its_end(own)
    trained(own, 1.0)
    turn(own)
    again = tmp_path / "again.jsonl"
    again.write_text("".join(row.to_line() + "\n" for row in rows(own, batches(own)[0])[:20]))
    add_rows(own, again, Choice(task="babi"))
    assert [event.name for event in turn(own)] == ["batch.rejected"]
    task = task_row(own, "babi")
    assert task.state == "used_up"
    assert "0 of 20 rows accepted" in task.reason
    with own.ledger.read() as session:
        assert are_all_used_up(session, own.settings)


def nearly_at_its_end(home: Home) -> None:
    """One more checkpoint that is no better will end the passes."""
    turn(home)
    trained(home, 1.0)
    turn(home)
    with home.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").stale = PATIENCE - 1


def new_row(number: int) -> Example:
    return Example.ask(f"Room {number} holds the {'red' if number % 2 else 'blue'} box. Which box?", "red box")


def test_while_a_task_may_be_corrected_it_is_not_used_up(own: Home) -> None:
    nearly_at_its_end(own)
    last = trained(own, None)
    add_task_record(own, last, lambda _key: False, 1.0)
    turn(own)
    assert task_row(own, "babi").stale == PATIENCE
    assert task_row(own, "babi").state == "active"
    with own.ledger.write() as tx:
        tx.session.add(verdict("testing", "checkpoint", last, "tested"))
        tx.session.add(verdict("mining", "checkpoint", last, "nothing mined"))
    turn(own)
    assert task_row(own, "babi").state == "used_up"


def test_a_second_task_is_taught_beside_the_first_and_a_task_at_its_end_is_replayed(own: Home) -> None:
    turn(own)
    trained(own, 1.0)
    with own.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").stale = PATIENCE
    add_rows(own, DATA / LETTERS, Choice(task="letters"))
    turn(own)
    newest = of_rows(own)[-1]
    assert set(newest.provenance["tasks"]) == {"letters"}
    replayed = newest.provenance["replay"]["babi"]
    made = rows(own, newest)
    assert Counter(row.family for row in made)["babi"] == replayed
    assert replayed / len(made) == pytest.approx(own.settings.generation.replay_share, abs=0.02)
    assert newest.priority == 0
    assert newest.quarantined == 0


def test_a_new_task_waits_neither_for_the_judges_nor_behind_another_batch(own: Home) -> None:
    turn(own)
    trained(own, None)
    turn(own)
    trained(own, None)
    turn(own)
    assert len(of_rows(own)) == AHEAD
    add_rows(own, DATA / LETTERS, Choice(task="letters"))
    turn(own)
    *_, newest = of_rows(own)
    assert len(of_rows(own)) == AHEAD + 1
    assert (newest.state, newest.priority) == ("queued", 0)
    assert "letters" in newest.provenance["tasks"]


def test_general_rows_are_replayed_beside_the_users_own(own: Home) -> None:
    general = [
        Example.ask(f"Say something about the number {n}.", f"It is {n}.", family="general", level=1, metric="loss")
        for n in range(30)
    ]
    artifact = own.artifacts.publish_lines([row.to_line() for row in general], "batch", {})
    with own.ledger.write() as tx:
        tx.session.merge(general_task(artifact.id, tx.now))
    turn(own)
    made = rows(own, of_rows(own)[0])
    share = Counter(row.family for row in made)["general"] / len(made)
    assert share == pytest.approx(own.settings.generation.replay_share, abs=0.01)
    assert of_rows(own)[0].quarantined == 0


def general_task(artifact: str, now: float) -> TaskRow:
    return TaskRow(
        name="general",
        kind="general",
        metric="loss",
        grader=None,
        pattern=None,
        source="the base model",
        held_out={REPLAY: artifact},
        rows=30,
        held_rows=0,
        passes=0.0,
        stale=0,
        version=0,
        protected=True,
        state="active",
        reason="",
        created_at=now,
        updated_at=now,
    )


def test_free_text_is_taught_and_measured_by_its_loss(tmp_path: Path) -> None:
    with home_of_tasks(tmp_path / "free", {BABI: Choice(task="notes", metric="loss")}, **ROOMY) as home:
        for loss in (2.0, 1.0):
            turn(home)
            trained(home, loss)
        turn(home)
        assert {row.metadata["metric"] for row in rows(home, of_rows(home)[0])} == {"loss"}
        assert task_row(home, "notes").best_id == own_checkpoint(home, 2)
        assert home.dead() == []


def test_a_task_whose_metric_has_changed_is_measured_from_a_new_start(own: Home) -> None:
    turn(own)
    trained(own, 2.0, share_right=1.0)
    turn(own)
    with own.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").metric = "loss"
    renew_suites(own.settings, own.ledger, own.artifacts)
    second = trained(own, 1.9)
    turn(own)
    task = task_row(own, "babi")
    assert (task.best_id, task.stale) == (second, 0)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_families_and_tasks_are_both_taught_and_families_are_replayed(tmp_path: Path, share: float) -> None:
    families = [{"name": "chain_sum", "levels": [1, 2]}]
    changed: dict[str, Any] = {
        "suites": {"families": families},
        "queue": {"low_water": 150, "high_water": 3_000, "batch_examples": 200},
        "generation": {"replay_share": share},
    }
    with home_of_tasks(tmp_path / "both", {BABI: Choice(task="babi")}, **changed) as home:
        turn(home)
        set_state(home, of_rows(home)[0].id, "training")
        turn(home)
        newest = of_rows(home)[-1]
        assert any(batch.provenance.get("generator") == "tasks" for batch in batches(home))
        counted = Counter(row.family for row in rows(home, newest))
        assert counted["chain_sum"] / counted.total() == pytest.approx(share, abs=0.02)
        assert newest.quarantined == 0
        assert home.dead() == []
        with home.ledger.read() as session:
            assert not are_all_used_up(session, home.settings)


def test_a_batch_takes_no_longer_than_a_segment_at_the_measured_speed(own: Home) -> None:
    turn(own)
    checkpoint = trained(own, 1.0)
    with own.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, checkpoint).tokens_per_s = 10.0
    turn(own)
    first, second = of_rows(own)
    tokens = first.tokens / first.examples
    assert second.examples < first.examples
    assert second.examples == pytest.approx(10.0 * own.settings.hyperparams.segment_max_s / tokens, rel=0.1)


def test_a_batch_that_cannot_be_made_is_one_dead_letter_and_comes_back_when_retried(own: Home) -> None:
    lane = GENERATION.lane("pass")

    def do(_work: Work) -> Outcome:
        raise ValueError("rows that nobody can read")

    own.bus(CORRECTION).sweep()
    bus = own.bus(System("generation", "4090", "", GENERATION.emits, 1.0, (Lane("pass", (), lane.find, do),)))
    for _ in range(8):
        bus.sweep()
    assert len(own.dead()) == 1
    with own.ledger.write() as tx:
        retry(tx, tx.session.query(DeadLetterRow).one().id, "a test")
    turn(own)
    assert [batch.state for batch in of_rows(own)] == ["queued"]
