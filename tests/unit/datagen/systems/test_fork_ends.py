"""Forks that end without a decision, and what training goes on with then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from ratchet.errors import ClaimLost
from ratchet.ledger import forks
from ratchet.ledger.tables import Batch, Fork
from ratchet.systems import poison
from ratchet.testing.home import Home, small_home

from .branches import (
    begin,
    both_trained,
    break_,
    end,
    give_up,
    head_id,
    knowing,
    opened,
    the_fork,
    trained,
    upcoming,
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "run", curriculum={"fork_every": 2}) as home:
        yield home


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


def test_a_fork_in_the_dead_letters_holds_nobody_up(home: Home) -> None:
    both_trained(home)
    assert upcoming(home) is None
    give_up(home, "curriculum", "fork", "1")
    assert upcoming(home) is not None


def test_a_fork_in_the_dead_letters_is_closed_and_told_and_another_may_be_opened(home: Home) -> None:
    first, _ = both_trained(home)
    give_up(home, "curriculum", "fork", "1")
    heard = home.bus(CURRICULUM).sweep()
    fork, _ = the_fork(home)
    assert (fork.state, fork.winner, head_id(home)) == ("abandoned", 0, first)
    assert "dead letter 1" in fork.reason
    assert [event.name for event in heard].count("fork.closed") == 1
    with home.ledger.write() as tx:
        poison.retry(tx, 1, "a test")
    home.bus(CURRICULUM).sweep()
    assert home.verdicts("curriculum")["1"] == "abandoned"
    for seed in (21, 22):
        home.add_record(trained(home, seed), "probe", lambda item: item.level == 1)
        home.bus(CURRICULUM).sweep()
    with home.ledger.read() as session:
        assert [fork.state for fork in session.query(Fork).order_by(Fork.id)] == ["abandoned", "open"]


def test_a_dead_fork_is_not_closed_while_its_branch_is_in_training(home: Home) -> None:
    opened(home)
    batch = begin(home)
    give_up(home, "curriculum", "fork", "1")
    home.bus(CURRICULUM).sweep()
    assert the_fork(home)[0].state == "open"
    tip = end(home, batch)
    home.bus(CURRICULUM).sweep()
    assert (the_fork(home)[0].state, head_id(home)) == ("abandoned", tip)


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
