"""A fork on a ledger: when it opens, whose batches are trained when, and who decides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.errors import ClaimLost
from ratchet.events.catalogue import CheckpointEvaluated
from ratchet.ledger import forks
from ratchet.ledger.line import line
from ratchet.ledger.queue import depth
from ratchet.ledger.tables import Batch, Evaluation, EvaluationRequest, Fork, Line, Trial
from ratchet.testing.home import Home, small_home

from .branches import (
    begin,
    both_trained,
    end,
    head_id,
    knowing,
    opened,
    sums,
    supplied,
    the_fork,
    trained,
    upcoming,
    with_open_experiment,
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "run", curriculum={"fork_every": 2}) as home:
        yield home


def test_no_fork_is_opened_unless_it_is_switched_on(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        with_open_experiment(home)
        home.bus(CURRICULUM, GENERATION, CORRECTION).sweep()
        with home.ledger.read() as session:
            assert session.query(Fork).count() == 0
            assert not [b for b in session.query(Batch) if "fork" in b.provenance.get("assignment", {})]


def test_a_fork_opens_after_so_many_batches_and_while_the_experiment_is_open(home: Home) -> None:
    home.add_record(trained(home, 1), "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    with home.ledger.read() as session:
        assert session.query(Fork).count() == 0
    trained(home, 2)
    heard = home.bus(CURRICULUM).sweep()
    fork, rows = the_fork(home)
    assert [event.name for event in heard] == ["fork.opened"]
    assert (fork.state, fork.parent_id, fork.curriculum_id) == ("open", None, 1)
    assert [row.place for row in rows] == [0, 1]
    assert rows[0].arm == "progressive" != rows[1].arm


@pytest.mark.parametrize("fork_every", [1, 3])
def test_after_how_many_batches_a_fork_opens_is_set(tmp_path: Path, fork_every: int) -> None:
    with small_home(tmp_path / "run", curriculum={"fork_every": fork_every}) as home:
        before = []
        for seed in (1, 2, 3):
            home.add_record(trained(home, seed), "probe", lambda item: item.level == 1)
            home.bus(CURRICULUM).sweep()
            with home.ledger.read() as session:
                before.append(session.query(Fork).count())
        assert before.count(0) == fork_every - 1


def test_before_anything_is_mastered_nothing_is_forked(home: Home) -> None:
    for seed in (1, 2, 3):
        home.add_record(trained(home, seed), "probe", lambda _item: False)
        home.bus(CURRICULUM).sweep()
    with home.ledger.read() as session:
        assert session.query(Fork).count() == 0


def test_generation_makes_each_branch_a_batch_of_its_arms_mix(home: Home) -> None:
    supplied(home)
    fork, rows = the_fork(home)
    with home.ledger.read() as session:
        batches = [session.get_one(Batch, row.batch_id) for row in rows]
        drawn = [batch.provenance["assignment"] for batch in batches]
        assert depth(session).total <= home.settings.queue.high_water
        assert forks.budget(session, batches[0].id) == min(batch.tokens for batch in batches)
    assert drawn == [{"arm": row.arm, "probability": row.probability, "fork": fork.id} for row in rows]
    assert [batch.provenance["parents"] for batch in batches] == [[f"fork:{fork.id}"]] * 2
    assert batches[0].provenance["mix"] != batches[1].provenance["mix"]
    assert len({batch.provenance["seed"] for batch in batches}) == 2


def test_both_batches_of_a_fork_find_room_where_a_third_would_not(tmp_path: Path) -> None:
    tight = {"low_water": 50, "high_water": 150, "batch_examples": 100}
    with small_home(tmp_path / "run", curriculum={"fork_every": 2}, queue=tight) as home:
        supplied(home)
        with home.ledger.read() as session:
            sizes = [session.get_one(Batch, row.batch_id).examples for row in the_fork(home)[1]]
            assert sizes == [75, 75]
            assert depth(session).total <= 150


def test_a_forks_batches_are_trained_on_its_branches_and_nothing_while_it_waits(home: Home) -> None:
    opened(home)
    parent = head_id(home)
    _, rows = the_fork(home)
    first = begin(home)
    assert (first, head_id(home)) == (rows[0].batch_id, parent)
    tip = end(home, first)
    assert head_id(home) == tip
    second = begin(home)
    assert (second, head_id(home)) == (rows[1].batch_id, parent)
    end(home, second)
    with home.ledger.read() as session:
        assert session.query(Batch).filter(Batch.state == "queued").count() > 0
    assert upcoming(home) is None


def test_until_both_batches_are_there_training_goes_on_with_others(home: Home) -> None:
    with home.ledger.write() as tx:
        forks.begin(tx, 1, {"progressive": 1.0, "mixed": 1.0}, 1)
    ordinary = home.add_batch(sums(9), state="queued")
    made = home.add_batch(sums(8), state="queued", priority=0)
    with home.ledger.write() as tx:
        forks.give_batch(tx, 1, 0, made)
    batch = upcoming(home)
    assert batch is not None
    assert batch.id == ordinary


def test_a_branch_gets_one_batch_and_a_second_stays_an_ordinary_one(home: Home) -> None:
    opened(home)
    _, rows = the_fork(home)
    extra = home.add_batch(sums(9), state="queued")
    with home.ledger.write() as tx:
        forks.give_batch(tx, 1, 0, extra)
    assert the_fork(home)[1][0].batch_id == rows[0].batch_id != extra


@pytest.mark.parametrize(("items", "winner"), [((20, 30), 1), ((30, 20), 0), ((20, 22), 0)])
def test_the_paired_test_decides_and_training_goes_on_from_the_winner(
    home: Home, items: tuple[int, int], winner: int
) -> None:
    tips = both_trained(home)
    for tip, right in zip(tips, items, strict=True):
        home.add_record(tip, "probe", knowing(right))
    heard = home.bus(CURRICULUM).sweep()
    fork, rows = the_fork(home)
    assert "fork.closed" in [event.name for event in heard]
    assert (fork.state, fork.winner, head_id(home)) == ("decided", winner, tips[winner])
    assert fork.numbers["gains"] - fork.numbers["losses"] == items[1] - items[0]
    assert home.verdicts("curriculum")["1"] == "decided"
    with home.ledger.read() as session:
        trials = {trial.checkpoint_id: trial for trial in session.query(Trial)}
        assert not session.get_one(Line, "main").fresh_optimizer
    assert {trials[tip].arm for tip in tips} == {row.arm for row in rows}
    assert {trials[tip].before_id for tip in tips} == {fork.parent_id}
    assert upcoming(home) is not None


def test_a_tip_that_testing_passed_over_is_asked_for_and_the_newest_is_waited_for(home: Home) -> None:
    first, second = both_trained(home)
    home.bus(CURRICULUM).sweep()
    with home.ledger.read() as session:
        assert [request.checkpoint_id for request in session.query(EvaluationRequest)] == [first]
    home.add_record(first, "probe", knowing(20))
    bus = home.bus(CURRICULUM)
    bus.sweep()
    assert the_fork(home)[0].state == "open"
    home.add_record(second, "probe", knowing(30))
    with home.ledger.write() as tx:
        tx.emit(CheckpointEvaluated(checkpoint_id=second, pools=("probe",)))
    bus.settle()
    assert the_fork(home)[0].state == "decided"


def lose_record(home: Home, checkpoint: str) -> None:
    with home.ledger.read() as session:
        row = session.query(Evaluation).where(Evaluation.checkpoint_id == checkpoint, Evaluation.pool == "probe").one()
    home.artifacts.delete(row.artifact)


def test_a_tips_record_that_cannot_be_read_is_asked_for_anew(home: Home) -> None:
    tips = both_trained(home)
    for tip, right in zip(tips, (20, 30), strict=True):
        home.add_record(tip, "probe", knowing(right))
    lose_record(home, tips[0])
    home.bus(CURRICULUM).sweep()
    assert the_fork(home)[0].state == "open"
    with home.ledger.read() as session:
        assert [request.checkpoint_id for request in session.query(EvaluationRequest)] == [tips[0]]
    home.add_record(tips[0], "probe", knowing(20))
    home.bus(CURRICULUM).sweep()
    assert the_fork(home)[0].state == "decided"


def test_without_the_parents_record_the_fork_is_decided_and_makes_no_trials(home: Home) -> None:
    tips = both_trained(home)
    for tip, right in zip(tips, (20, 30), strict=True):
        home.add_record(tip, "probe", knowing(right))
    lose_record(home, str(the_fork(home)[0].parent_id))
    home.bus(CURRICULUM).sweep()
    assert the_fork(home)[0].state == "decided"
    with home.ledger.read() as session:
        assert not {trial.checkpoint_id for trial in session.query(Trial)} & set(tips)


def test_a_parent_without_a_record_is_asked_for_so_that_the_branches_are_trials(home: Home) -> None:
    opened(home)
    trained(home, 6)
    for right in (20, 30):
        home.add_record(end(home, begin(home)), "probe", knowing(right))
    home.bus(CURRICULUM).sweep()
    fork, rows = the_fork(home)
    assert fork.state == "open"
    with home.ledger.read() as session:
        assert [request.checkpoint_id for request in session.query(EvaluationRequest)] == [fork.parent_id]
    home.add_record(str(fork.parent_id), "probe", knowing(10))
    home.bus(CURRICULUM).sweep()
    with home.ledger.read() as session:
        assert {row.tip_id for row in rows} <= {trial.checkpoint_id for trial in session.query(Trial)}


def test_the_next_fork_is_opened_after_so_many_batches_more(home: Home) -> None:
    tips = both_trained(home)
    for tip in tips:
        home.add_record(tip, "probe", knowing(20))
    home.bus(CURRICULUM).sweep()
    home.bus(CURRICULUM).sweep()
    the_fork(home)
    for seed in (11, 12):
        trained(home, seed)
    home.bus(CURRICULUM).sweep()
    with home.ledger.read() as session:
        assert [fork.id for fork in session.query(Fork).order_by(Fork.id)] == [1, 2]


def test_a_step_taken_twice_is_taken_once(home: Home) -> None:
    first, second = both_trained(home)
    with home.ledger.write() as tx:
        forks.begin(tx, 1, {"a": 1.0, "b": 1.0}, 9)
        forks.decide(tx, forks.at_rest(tx, 1), 1, {}, "")
    with home.ledger.write() as tx, pytest.raises(ClaimLost):
        forks.at_rest(tx, 1)
    fork, rows = the_fork(home)
    assert (fork.curriculum_id, [row.tip_id for row in rows], head_id(home)) == (1, [first, second], second)
    home.bus(CURRICULUM).sweep()
    assert home.verdicts("curriculum")["1"] == "decided"


def test_what_adapters_stand_on_comes_back_with_the_branch(home: Home) -> None:
    opened(home)
    with home.ledger.write() as tx:
        line(tx.session).adapter_base_id, line(tx.session).fresh_optimizer = "base", True
    first = begin(home)
    with home.ledger.write() as tx:
        line(tx.session).adapter_base_id, line(tx.session).fresh_optimizer = "own", False
    end(home, first)
    begin(home)
    with home.ledger.write() as tx:
        main = line(tx.session)
        assert (main.adapter_base_id, main.fresh_optimizer) == ("base", True)
        rows = forks.branches(tx.session, 1)
        assert rows[0].adapter_base_id == "own"
