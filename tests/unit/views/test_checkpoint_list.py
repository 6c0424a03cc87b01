"""The list of checkpoints and the heat map: filters, orders, pages, places, shades."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.record import Rate, TaskScore
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.views.checkpoint_list import (
    STATUSES,
    Filter,
    ListedCheckpoint,
    list_checkpoints,
    measured_tasks,
    ranking_places,
)
from ratchet.views.heat_map import heat_map, shade_of
from ratchet.views.view_model import CheckpointView, plain

from tests.support.synthetic_ledger import build


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('list') / 'ledger.db'}")
    migrate(ledger)
    build(ledger, None)
    yield ledger
    ledger.close()


def numbers(ledger: Ledger, wanted: Filter, limit: int = 50, offset: int = 0) -> list[int]:
    return [row.view.ordinal for row in rows(ledger, wanted, limit, offset)]


def rows(ledger: Ledger, wanted: Filter, limit: int = 50, offset: int = 0) -> list[ListedCheckpoint]:
    with ledger.read() as session:
        return list_checkpoints(session, wanted, limit, offset)[0]


def test_the_best_is_first_and_what_was_not_measured_last(made: Ledger) -> None:
    found = rows(made, Filter())
    places = [row.place.rank for row in found if row.place is not None]
    assert len(places) > 5
    assert places == sorted(places)
    assert all(row.place is None for row in found[len(places) :])
    assert any(row.place.is_tied for row in found if row.place is not None)


@pytest.mark.parametrize("sort", ["number", "step", "loss"])
def test_it_is_sorted_both_ways(made: Ledger, sort: str) -> None:
    down = numbers(made, Filter(sort=sort))
    up = numbers(made, Filter(sort=sort, descending=False))
    known = [n for n in up if sort != "loss" or n > 0]  # the base model has no training loss
    assert [n for n in down if n in known] == known[::-1]
    assert set(down) == set(up) == set(range(12))


def test_pages_join_without_gap_or_repeat(made: Ledger) -> None:
    whole = numbers(made, Filter())
    assert [n for offset in range(0, 12, 5) for n in numbers(made, Filter(), 5, offset)] == whole


def test_each_status_has_the_checkpoints_that_show_it(made: Ledger) -> None:
    shown = {row.view.ordinal: row.status for row in rows(made, Filter())}
    found = {status: numbers(made, Filter(status=status)) for status in STATUSES}
    assert sorted(n for some in found.values() for n in some) == sorted(shown)
    for status in ("live", "superseded", "screened out", "rolled back", "broken", "deleted"):
        assert {shown[n] for n in found[status]} <= {status}, status
    assert {shown[n] for n in found["deployed"]} <= {"was live"}
    assert found["live"]


def test_a_text_finds_numbers_ids_and_reasons(made: Ledger) -> None:
    by_number = rows(made, Filter(text="#4"))
    assert {row.view.ordinal for row in by_number} >= {4}
    id = by_number[0].view.id
    named = {
        row.view.ordinal for row in rows(made, Filter()) if row.view.id == id or "#4 is newer" in plain(row.reason)
    }
    assert set(numbers(made, Filter(text=id))) == named  # itself, and what it has superseded
    reasons = rows(made, Filter(text="NEWER AND RANKS"))
    assert reasons
    assert all("newer and ranks" in row.reason for row in reasons)
    assert numbers(made, Filter(text="100% of nothing_")) == []


def test_one_task_has_its_own_measure_and_places(made: Ledger) -> None:
    with made.read() as session:
        tasks = measured_tasks(session)
        assert {"chain_sum", "menus", "notes"} <= set(tasks)
        assert ranking_places(session, "reverse").keys() == ranking_places(session).keys()
        assert ranking_places(session, "no such task") == {}
    found = rows(made, Filter(task="reverse"))
    rates = [row.rate.value for row in found if row.rate is not None]
    assert rates == sorted(rates, reverse=True)
    assert all(not row.scores for row in found)
    loss = rows(made, Filter(task="notes"))
    assert all(row.rate is None for row in loss)
    assert any(row.scores for row in loss)
    places = [row.place.rank for row in loss if row.place is not None]
    assert places == sorted(places)


def test_unknown_filters_name_the_known_ones() -> None:
    with pytest.raises(PreconditionFailed, match="there are: live, open"):
        Filter(status="famous")
    with pytest.raises(PreconditionFailed, match="it can by: score"):
        Filter(sort="colour")


def view(ordinal: int, **fields: object) -> CheckpointView:
    return CheckpointView(id=f"c{ordinal:04d}-aaaaaa", ordinal=ordinal, step=1, created_at=1.0, **fields)  # type: ignore[arg-type]


def test_the_heat_map_has_a_cell_for_each_measure() -> None:
    score = TaskScore(metric="loss", items=8, n=8, mean=0.0, low=0.0, high=0.1)
    judged = TaskScore(metric="judge", items=8, n=8, mean=0.55, low=0.4, high=0.7)
    full = view(2, levels={("sums", 1): Rate(correct=9, n=9), ("sums", 2): Rate(correct=1, n=90)}, scores={"a": score})
    other = view(1, levels={("sums", 1): Rate(correct=0, n=9)}, scores={"b": judged})
    found = heat_map([full, other, view(3)])
    assert found.families == (("sums", 2), ("a", 1), ("b", 1))
    assert [each.ordinal for each, _ in found.rows] == [2, 1]
    first, second = (cells for _, cells in found.rows)
    assert [cell and (cell.text, cell.shade, cell.items) for cell in first] == [
        ("100", 10, 9),
        ("1", 1, 90),
        ("0.00", 10, 8),
        None,
    ]
    assert [cell and (cell.text, cell.shade) for cell in second] == [("0", 0), None, None, ("55", 6)]
    assert [column.family for column in heat_map([full, other], "b").columns] == ["b"]


@pytest.mark.parametrize(("share", "shade"), [(0, 0), (0.001, 1), (0.5, 5), (0.999, 9), (1, 10)])
def test_only_none_and_all_have_the_outermost_shades(share: float, shade: int) -> None:
    assert shade_of(share) == shade
