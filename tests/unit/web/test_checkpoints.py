"""The pages of checkpoints: the ranking, one checkpoint with its verdicts and actions, and two compared."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.ledger import Ledger
from ratchet.ledger.deployments import serving
from ratchet.ledger.migrate import migrate
from ratchet.ledger.suites import current
from ratchet.ledger.tables import BatchRow, BlockRow, CheckpointRow, CounterRow, EvaluationRow, MinedRow, OutboxRow
from ratchet.removed import removed_after
from ratchet.settings import Settings
from ratchet.views.verdicts import explain
from sqlalchemy import delete, select, update

from tests.support.home import small_home
from tests.support.synthetic_ledger import build
from tests.support.viewer import Viewer

TAG = re.compile(r"<[^>]*>")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "hostile"])
def any_ledger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Ledger]]:
    yield from made(tmp_path_factory.mktemp("any") / "run", hostile=request.param)


@pytest.fixture(scope="module")
def plain_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Ledger]]:
    yield from made(tmp_path_factory.mktemp("plain") / "run", hostile=False)


def made(home: Path, *, hostile: bool) -> Generator[tuple[Path, Ledger]]:
    settings = Settings(home=home)
    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    build(ledger, artifact_store(settings), hostile=hostile)
    yield home, ledger
    ledger.close()


@pytest.fixture
def viewer(plain_ledger: tuple[Path, Ledger]) -> Viewer:
    return Viewer(*plain_ledger)


def shown_numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'<tr id="checkpoint-(\d+)">', text)]


def words(text: str) -> str:
    return " ".join(TAG.sub(" ", text).split())


def test_the_ranking_shows_intervals_places_and_the_map(viewer: Viewer) -> None:
    text = viewer.get("/checkpoints")
    assert set(shown_numbers(text)) == set(range(12))
    assert 'aria-sort="descending"' in text
    assert re.search(r"\d+\.\d to \d+\.\d", text)
    assert "tied" in text or "best" in text
    assert re.search(r'class="heat heat\d+" title="\d+ of \d+ right"', text)


def test_filters_and_orders_are_in_the_address(viewer: Viewer) -> None:
    assert shown_numbers(viewer.get("/checkpoints?sort=number&order=asc")) == list(range(12))
    assert shown_numbers(viewer.get("/checkpoints?status=broken&sort=number")) == [7]
    assert 4 in shown_numbers(viewer.get("/checkpoints?text=%234"))
    of_task = viewer.get("/checkpoints?task=reverse")
    assert "Right answers, reverse, on the eval suite" in of_task
    assert "nats per token" in viewer.get("/checkpoints?task=notes")
    assert "preferred, %" in viewer.get("/checkpoints?task=letters")
    assert '<option value="reverse" selected' in of_task
    assert "No checkpoint fits" in viewer.get("/checkpoints?text=no+such+text")


def test_a_second_sort_turns_the_order_and_keeps_the_filter(viewer: Viewer) -> None:
    text = viewer.get("/checkpoints?status=superseded&sort=step&order=desc")
    assert "?status=superseded&sort=step&order=asc" in text
    assert "?status=superseded&sort=loss&order=asc" in text


def test_an_unknown_filter_says_what_there_is(viewer: Viewer) -> None:
    assert "there is no status 'famous'" in viewer.get("/checkpoints?status=famous", 409)
    assert "no checkpoint is measured on 'x'" in viewer.get("/checkpoints?task=x", 409)
    assert "there is no page 'x'" in viewer.get("/checkpoints?page=x", 409)


def test_every_checkpoint_has_its_page(any_ledger: tuple[Path, Ledger]) -> None:
    viewer = Viewer(*any_ledger)
    for ordinal in range(12):
        raw = viewer.client.get(f"/checkpoints/{ordinal}").text
        assert f"Checkpoint #{ordinal}" in raw
        assert "<script>window.xss" not in raw
        assert "<img src=x" not in raw
        assert "\x1b" not in raw
        assert "\u202e" not in raw


def test_one_checkpoint_tells_all_about_it(viewer: Viewer, plain_ledger: tuple[Path, Ledger]) -> None:
    with plain_ledger[1].read() as session:
        row = session.scalars(select(CheckpointRow).where(CheckpointRow.ordinal == 8)).one()
        saved = session.scalars(
            select(OutboxRow.event_id).where(OutboxRow.name == "checkpoint.saved", OutboxRow.body.contains(row.id))
        ).one()
    text = viewer.get("/checkpoints/8")
    for part in (
        row.weights,
        f'data-copies="{row.weights}"',
        f"/artifacts/{row.artifact}",
        f'href="/data/batches/{row.batch_id}"',
        'href="/checkpoints/7"',
        f'href="/journal/{saved}"',
        'href="/playground?model=8"',
        'href="/checkpoints/8/export"',
        "What must not get worse",
        "Reliability diagram of #8",
        "items of the eval",
    ):
        assert part in text, part
    for system in ("testing", "regression", "comparison", "calibration", "mining", "curriculum", "deployment"):
        assert f'<h3><a href="/systems/{system}">' in text
    assert "{'" not in words(text)  # no raw dictionaries


def test_roles_and_ids_name_a_checkpoint_too(viewer: Viewer, plain_ledger: tuple[Path, Ledger]) -> None:
    with plain_ledger[1].read() as session:
        champion = session.get_one(CheckpointRow, serving(session).desired_id)
    for name in ("champion", champion.id, str(champion.ordinal)):
        assert f"Checkpoint #{champion.ordinal} " in viewer.get(f"/checkpoints/{name}")


def test_an_unknown_checkpoint_gives_the_way_out(viewer: Viewer) -> None:
    assert "no checkpoint '99': give its number (7), the beginning of its id" in viewer.get("/checkpoints/99", 409)


def test_only_actions_that_make_sense_are_offered(viewer: Viewer, plain_ledger: tuple[Path, Ledger]) -> None:
    with plain_ledger[1].read() as session:
        champion = session.get_one(CheckpointRow, serving(session).desired_id).ordinal
        blocked = session.scalars(
            select(CheckpointRow.ordinal).join(BlockRow, BlockRow.checkpoint_id == CheckpointRow.id)
        ).one()
    live, gone, waits = (viewer.get(f"/checkpoints/{n}") for n in (champion, blocked, 11))
    assert 'hx-post="/live/rollback"' in live
    assert 'hx-post="/live/deploy"' not in live
    assert 'hx-post="/live/unblock"' in gone
    assert 'hx-post="/live/deploy"' not in gone
    assert 'hx-post="/live/freeze"' in waits
    assert 'name="force" value="yes"' in waits
    assert "hx-post=" not in words(viewer.get("/checkpoints/7"))


def test_the_actions_reach_the_ledger(tmp_path: Path) -> None:
    home, ledger = next(kept := made(tmp_path / "run", hostile=False))
    viewer = Viewer(home, ledger)
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', viewer.get("/checkpoints/11")))
    viewer.post("/live/deploy", {**fields, "reason": "to try it"})
    with ledger.read() as session:
        assert session.get_one(CheckpointRow, serving(session).desired_id).ordinal == 11
    assert "It goes live." in viewer.get("/checkpoints/11")
    kept.close()


def test_nothing_can_be_done_where_it_is_read_only(plain_ledger: tuple[Path, Ledger]) -> None:
    viewer = Viewer(*plain_ledger, read_only=True)
    for path in ("/checkpoints/8", "/checkpoints/11"):
        assert "hx-post" not in viewer.get(path)


def test_an_empty_ledger_says_what_to_do(home: Path, empty_ledger: Ledger) -> None:
    viewer = Viewer(home, empty_ledger)
    assert "`ratchet run`" in viewer.get("/checkpoints").replace("<code>", "`").replace("</code>", "`")
    assert "Name two checkpoints" in viewer.get("/checkpoints/compare")


def test_two_ticked_ones_are_compared_the_older_first(viewer: Viewer) -> None:
    answer = viewer.client.get("/checkpoints/compare?pick=10&pick=9", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/checkpoints/compare?a=9&b=10")
    assert "tick two checkpoints" in viewer.get("/checkpoints/compare?pick=3", 409)
    assert "3 are ticked" in viewer.get("/checkpoints/compare?pick=3&pick=4&pick=5", 409)


def test_a_comparison_counts_what_it_shows(viewer: Viewer, plain_ledger: tuple[Path, Ledger]) -> None:
    with plain_ledger[1].read() as session:
        suite = current(session, "eval")
        ids = [session.scalars(select(CheckpointRow.id).where(CheckpointRow.ordinal == n)).one() for n in (3, 4)]
        records = [session.get_one(EvaluationRow, f"{id}/{suite.id}") for id in ids]
        right = [sum(correct for correct, _ in row.by_level["reverse"].values()) for row in records]
    text = words(viewer.get("/checkpoints/compare?a=3&b=4&family=reverse"))
    both, lost = map(int, found(r"#3 right (\d+) both right (\d+) lost", text))
    gained, wrong = map(int, found(r"#3 wrong (\d+) gained (\d+) both wrong", text))
    assert [both + lost, both + gained] == right
    for change, count in (("gained", gained), ("lost", lost), ("right", both), ("wrong", wrong)):
        page = words(viewer.get(f"/checkpoints/compare?a=3&b=4&family=reverse&change={change}"))
        assert f"{count} items" in page or (count == 0 and "No item is" in page), change
    whole = words(viewer.get("/checkpoints/compare?a=3&b=4"))
    for part in ("p-value", "95 % interval", "nats/token", "preferred"):  # of all kinds of tasks
        assert part in whole


def found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    assert match is not None, text
    return match.groups()


def test_a_comparison_is_filtered_and_paged(viewer: Viewer) -> None:
    of_task = viewer.get("/checkpoints/compare?a=3&b=4&family=reverse&change=all")
    assert "reverse level" in of_task
    assert "chain_sum level" not in of_task
    second = viewer.get("/checkpoints/compare?a=3&b=4&change=all&page=2")
    assert '<ol class="pairs" start="21">' in second
    assert "change=all&page=3" in second


def test_the_answers_are_shown_as_text(any_ledger: tuple[Path, Ledger]) -> None:
    viewer = Viewer(*any_ledger)
    for page in (1, 2, 3):
        raw = viewer.client.get(f"/checkpoints/compare?a=3&b=4&change=all&page={page}").text
        assert "<script>window.xss" not in raw
        assert "<img src=x" not in raw
        assert "\x1b" not in raw
        assert 'class="pairs"' in raw


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("a=3&b=99", "no checkpoint '99'"),
        ("a=3&b=3", "both are #3"),
        ("a=3&b=4&suite=confirm", "confirm suites are never shown"),
        ("a=3&b=11", "#11 has no record on that suite"),
        ("a=3&b=4&family=x", "no item of 'x': the suite has chain_sum"),
        ("a=3&b=4&change=x", "there is no change 'x'"),
    ],
)
def test_what_cannot_be_compared_is_told_beside_the_form(viewer: Viewer, address: str, sentence: str) -> None:
    text = viewer.get(f"/checkpoints/compare?{address}")
    assert sentence in words(text)
    assert 'name="a" value="3"' in text


def test_a_confirm_suite_is_not_shown_by_its_id_either(viewer: Viewer, plain_ledger: tuple[Path, Ledger]) -> None:
    with plain_ledger[1].read() as session:
        suite = current(session, "confirm").id
    assert "confirm suites are never shown" in viewer.get(f"/checkpoints/compare?a=0&b=6&suite={suite}")


def test_a_new_home_has_only_its_base_model(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        viewer = Viewer(tmp_path / "run", home.ledger, home.settings)
        assert shown_numbers(viewer.get("/checkpoints")) == [0]
        text = viewer.get("/checkpoints/0")
    assert "The base model" in text
    assert "it is the model that the run began with" in text


def test_what_retention_removed_is_named_and_every_page_works(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        ids = [home.add_checkpoint() for _ in range(2)]
        for id in ids:
            home.add_record(id, "eval", lambda item: item.level == 1)
        batch = home.add_batch(home.suite_items("probe")[:2], state="rejected", quarantined=2)
        with home.ledger.write() as tx:
            tx.session.execute(update(EvaluationRow).values(artifact=removed_after(30)))
            tx.session.get_one(BatchRow, batch).quarantine_artifact = removed_after(30)
            mined = {"count": 3, "by_category": {"wrong": 3}, "numbers": {}, "created_at": tx.now}
            tx.session.add(MinedRow(checkpoint_id=ids[0], artifact=removed_after(30), **mined))
            tx.session.execute(delete(OutboxRow))
            tx.session.merge(CounterRow(name="retention.removed", value=1_234))
        viewer = Viewer(home.settings.home, home.ledger)
        said = "removed by retention after 30 days"
        assert said in viewer.get("/checkpoints/compare?a=1&b=2")
        assert said in viewer.get("/mistakes?set=1")
        assert said in viewer.get(f"/data/batches/{batch}/quarantine", status=409)
        assert "right" in viewer.get("/checkpoints/1"), "scores are columns, and stay"
        gone = "1,234 events were removed by retention after 90 days"
        for page in ("/checkpoints/1", "/journal", "/data", f"/data/batches/{batch}", "/"):
            assert (gone in viewer.get(page)) is (page in ("/checkpoints/1", "/journal"))
        assert gone in viewer.get("/journal/0123456789abcdef", status=404)
        with home.ledger.read() as session:
            found = explain(session, session.get_one(CheckpointRow, ids[0]))
        assert any(said in entry["reason"] for entries in found.values() for entry in entries)
