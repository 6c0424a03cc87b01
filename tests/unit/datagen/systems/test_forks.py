"""A fork on a ledger: when it opens, whose batches are trained when, who decides, and what ends it early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.data.example import Example
from ratchet.errors import ClaimLost
from ratchet.events.catalogue import CheckpointEvaluated
from ratchet.ledger import forks
from ratchet.ledger.line import line
from ratchet.ledger.queue import depth, next_batch
from ratchet.ledger.tables import Batch, Branch, Checkpoint, DeadLetter, EvaluationRequest, Fork, Line, Trial, Verdict
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.testing.home import Home, Knows, small_home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "run", curriculum={"fork_every": 2}) as home:
        yield home


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
    tx.session.add(
        Verdict(
            system=system,
            subject_kind=kind,
            subject_id=subject_id,
            outcome=outcome,
            reason="",
            numbers={},
            cause=None,
            worker="test",
            created_at=tx.now,
            took_s=0.0,
        )
    )


def both_trained(home: Home) -> tuple[str, str]:
    opened(home)
    first = end(home, begin(home))
    return first, end(home, begin(home))


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


def test_when_a_fork_is_given_up_is_set(tmp_path: Path) -> None:
    with small_home(tmp_path / "run", curriculum={"fork_every": 2, "fork_limit_s": 1e-6}) as home:
        opened(home)
        home.bus(CURRICULUM).sweep()
        fork, rows = the_fork(home)
        assert fork.state == "abandoned"
        assert "took longer than" in fork.reason
        bound = [row.batch_id for row in rows if row.batch_id]
        assert begin(home) is not None
        with home.ledger.read() as session:
            assert all(forks.branch_of(session, id) is None for id in bound)


def test_a_fork_outlives_its_limit_while_a_branch_is_in_training(tmp_path: Path) -> None:
    with small_home(tmp_path / "run", curriculum={"fork_every": 2}) as home:
        opened(home)
        batch = begin(home)
        home.settings = home.settings.model_copy(
            update={"curriculum": home.settings.curriculum.model_copy(update={"fork_limit_s": 1e-6})}
        )
        home.bus(CURRICULUM).sweep()
        assert the_fork(home)[0].state == "open"
        tip = end(home, batch)
        home.bus(CURRICULUM).sweep()
        fork, rows = the_fork(home)
        assert (fork.state, fork.winner, head_id(home)) == ("abandoned", 0, tip)
        follower = upcoming(home)
        assert follower is not None
        assert rows[1].tip_id is None


def test_a_rejected_batch_ends_the_fork_and_the_other_is_an_ordinary_one(home: Home) -> None:
    opened(home)
    _, rows = the_fork(home)
    with home.ledger.write() as tx:
        tx.session.get_one(Batch, rows[1].batch_id).state = "rejected"
    home.bus(CURRICULUM).sweep()
    fork, _ = the_fork(home)
    assert (fork.state, fork.winner) == ("abandoned", None)
    queued = set()
    while (batch := upcoming(home)) is not None:
        queued.add(batch.id)
        end(home, begin(home))
    assert rows[0].batch_id in queued


def test_a_broken_second_tip_leaves_the_first(home: Home) -> None:
    first, second = both_trained(home)
    break_(home, second)
    home.bus(CURRICULUM).sweep()
    fork, rows = the_fork(home)
    assert (fork.state, fork.winner, head_id(home)) == ("abandoned", 0, first)
    with home.ledger.read() as session:
        assert session.get_one(Batch, rows[1].batch_id).state == "quarantined"


def test_a_broken_first_tip_leaves_the_second(home: Home) -> None:
    first, second = both_trained(home)
    break_(home, first)
    home.bus(CURRICULUM).sweep()
    assert (the_fork(home)[0].winner, head_id(home)) == (1, second)


def test_where_no_tip_is_sound_training_goes_back_to_the_parent(home: Home) -> None:
    for tip in both_trained(home):
        break_(home, tip)
    home.bus(CURRICULUM).sweep()
    fork, _ = the_fork(home)
    assert (fork.state, fork.winner, head_id(home)) == ("abandoned", None, fork.parent_id)


def break_(home: Home, checkpoint_id: str) -> None:
    with home.ledger.write() as tx:
        tx.session.get_one(Checkpoint, checkpoint_id).state = "broken"


def test_a_branch_that_a_human_skips_leaves_the_first(home: Home) -> None:
    opened(home)
    first = end(home, begin(home))
    end(home, begin(home), "skipped")
    assert upcoming(home) is None
    home.bus(CURRICULUM).sweep()
    assert (the_fork(home)[0].state, head_id(home)) == ("abandoned", first)


def test_a_branch_that_training_gave_up_ends_the_fork(home: Home) -> None:
    opened(home)
    first = end(home, begin(home))
    second = begin(home)
    give_up(home, "training", "batch", second)
    assert upcoming(home) is None
    home.bus(CURRICULUM).sweep()
    fork, _ = the_fork(home)
    assert (fork.state, head_id(home)) == ("abandoned", first)
    assert "training has given up" in fork.reason


def give_up(home: Home, system: str, kind: str, subject_id: str) -> None:
    with home.ledger.write() as tx:
        tx.session.add(
            DeadLetter(
                system=system,
                subject_kind=kind,
                subject_id=subject_id,
                error="",
                traceback="",
                failures=3,
                kills=0,
                created_at=tx.now,
                resolved_at=None,
            )
        )


def test_a_fork_in_the_dead_letters_holds_nobody_up(home: Home) -> None:
    both_trained(home)
    assert upcoming(home) is None
    give_up(home, "curriculum", "fork", "1")
    assert upcoming(home) is not None


def test_a_line_that_has_gone_on_is_not_turned_back(home: Home) -> None:
    tips = both_trained(home)
    later = trained(home, 9)
    for tip, right in zip(tips, (10, 30), strict=True):
        home.add_record(tip, "probe", knowing(right))
    home.bus(CURRICULUM).sweep()
    assert (the_fork(home)[0].winner, head_id(home)) == (1, later)


def test_nobody_closes_a_fork_while_a_branch_is_in_training(home: Home) -> None:
    opened(home)
    begin(home)
    with home.ledger.write() as tx, pytest.raises(ClaimLost, match="fork 1 has gone on"):
        forks.at_rest(tx, 1)


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
