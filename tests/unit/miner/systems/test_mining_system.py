"""Mining, around model children that answer by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from miner.mined_items import MinedItem, read_mined
from miner.model_children import MiningSpec
from miner.systems.mining import RETEST_ITEMS
from miner.systems.mining import SYSTEM as MINING
from ratchet.evaluation.build_suites import held_out
from ratchet.ledger.tables import DeploymentRow, EvaluationRow, MinedRow
from ratchet.tasks.graders import item_key

from tests.support.home import Home, small_home

from .by_heart import WATCHED, ByHeart, half_right, mined_rows


def test_fresh_items_near_the_frontier_are_mined_with_their_origin(watched: Home) -> None:
    model = ByHeart()
    checkpoint = half_right(watched)
    watched.bus(MINING, children=model).sweep()
    row, items = mined_rows(watched, checkpoint)
    assert row.numbers["asked"] == 60
    assert set(row.numbers["by_origin"]) >= {"probe", "fresh"}
    fresh = [item for item in items if item.found_by != "probe"]
    assert {item.cell for item in fresh} == {("chain_sum", 2)}
    assert not [item.key for item in fresh if item.key in held_out(watched.settings.suites)]
    assert watched.dead() == []


def _mined_once(home: Home, model: ByHeart) -> str:
    checkpoint = half_right(home)
    home.bus(MINING, children=model).sweep()
    return checkpoint


def test_the_next_checkpoint_is_asked_the_set_again_beside_random_items_and_not_searched_there(watched: Home) -> None:
    model = ByHeart()
    _, first = mined_rows(watched, _mined_once(watched, model))
    second = half_right(watched, 1)
    watched.bus(MINING, children=model).sweep()
    row, _ = mined_rows(watched, second)
    told = row.numbers["follow_up"]
    assert told["mined"] == told["random"] == min(RETEST_ITEMS, len(first))
    assert told["mined_failed"] <= told["mined"]
    first_keys = model.orders[1].known
    assert {item_key(item) for item in model.orders[1].retest} <= first_keys
    assert not first_keys & {item_key(item) for item in model.orders[1].control}
    assert model.orders[1].before == {name: tuple(pair) for name, pair in model_yields(watched).items()}


def test_an_unreadable_record_is_requested_again(home: Home) -> None:
    checkpoint = half_right(home)
    with home.ledger.read() as session:
        home.artifacts.delete(
            session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == checkpoint).one().artifact
        )
    assert "evaluation.requested" in [event.name for event in home.bus(MINING).sweep()]
    home.add_record(checkpoint, "probe", lambda item: item.level == 1)
    home.bus(MINING).sweep()
    assert home.verdicts("mining").keys() == {checkpoint}


def test_a_lost_earlier_set_does_not_stop_mining(home: Home) -> None:
    first = half_right(home)
    home.bus(MINING).sweep()
    row, _ = mined_rows(home, first)
    home.artifacts.delete(str(row.artifact))
    second = half_right(home, 1)
    home.bus(MINING).sweep()
    assert home.dead() == []
    assert mined_rows(home, second)[1]


def model_yields(home: Home) -> dict[str, Any]:
    with home.ledger.read() as session:
        first = session.query(MinedRow).order_by(MinedRow.created_at).first()
        assert first is not None
        yields: dict[str, Any] = first.numbers["yields"]
        return yields


def test_an_item_that_an_earlier_champion_had_right_is_forgotten(home: Home) -> None:
    champion = home.add_checkpoint()
    home.add_record(champion, "probe", lambda _item: True)
    with home.ledger.write() as tx:
        tx.session.add(
            DeploymentRow(
                action="deploy",
                actor="gate",
                checkpoint_id=champion,
                previous_id=None,
                reason="",
                numbers={},
                token=1,
                created_at=1.0,
            )
        )
    checkpoint = half_right(home)
    home.bus(MINING).sweep()
    _, items = mined_rows(home, checkpoint)
    assert {item.category for item in items} == {"forgotten"}


def test_without_a_level_near_the_frontier_no_model_is_loaded(watched: Home) -> None:
    model = ByHeart()
    checkpoint = watched.add_checkpoint()
    watched.add_record(checkpoint, "probe", lambda _item: True)
    watched.bus(MINING, children=model).sweep()
    assert model.orders == []
    assert watched.verdicts("mining") == {checkpoint: "nothing mined"}


def asked_to_search(tmp_path: Path, **changed: int) -> tuple[list[MiningSpec], list[MinedItem]]:
    """The spec of the model child and the mined items, with these settings."""
    model = ByHeart()
    with small_home(tmp_path / "told", mining={**WATCHED["mining"], **changed}) as home:
        checkpoint = half_right(home)
        home.bus(MINING, children=model).sweep()
        row, _ = mined_rows(home, checkpoint) if model.orders else (None, [])
        return model.orders, read_mined(home.artifacts, str(row.artifact)) if row else []


def test_a_budget_of_zero_searches_nothing(tmp_path: Path) -> None:
    assert asked_to_search(tmp_path, search_items=0)[0] == []


def test_the_search_has_its_budget_from_the_settings(tmp_path: Path) -> None:
    (order,), found = asked_to_search(tmp_path, search_items=7)
    assert order.budget == 7
    assert sum(item.found_by != "probe" for item in found) <= 7


def test_a_mined_set_has_at_most_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miner.systems.mining.SET_ITEMS", 3)
    with small_home(tmp_path / "few") as home:
        checkpoint = half_right(home)
        home.bus(MINING).sweep()
        assert len(mined_rows(home, checkpoint)[1]) == 3
