"""The pages Curriculum and Mistakes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import CurriculumRow, MinedRow, TaskRow
from ratchet.settings import Settings
from ratchet.views.view_model import Scale
from sqlalchemy import delete, func, select

from tests.support.pages import synthetic_home
from tests.support.viewer import Viewer


@pytest.fixture(scope="module")
def template_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up history that the tests of this file copy, since making it takes a second."""
    return synthetic_home(tmp_path_factory.mktemp("template") / "home")


@pytest.fixture
def home(home: Path, template_home: Path) -> Path:
    """With the history in it; the environment names it."""
    shutil.copytree(template_home, home)
    return home


@pytest.fixture
def history(home: Path) -> Iterator[Ledger]:
    ledger = Ledger(Settings(home=home).ledger_url)
    yield ledger
    ledger.close()


@pytest.fixture
def viewer(home: Path, history: Ledger) -> Viewer:
    return Viewer(home, history)


def test_the_mix_is_shown_with_what_is_mastered(viewer: Viewer, history: Ledger) -> None:
    text = viewer.get("/curriculum")
    with history.read() as session:
        row = session.scalars(select(CurriculumRow).order_by(CurriculumRow.id.desc())).first()
    assert row is not None
    level = row.mastery["levels"][0]
    assert f"{level['correct']} of {level['n']}" in text
    for share in row.mix["shares"]:
        assert share["reason"] in text
    for arm in row.experiment["arms"]:
        assert arm["name"] in text


def test_earlier_mixes_are_paged_and_opened(viewer: Viewer, history: Ledger) -> None:
    with history.write() as tx:
        for _ in range(30):
            told = {"mix": {"strategy": "mixed", "shares": []}, "mastery": {"levels": []}, "reason": "again"}
            tx.session.add(CurriculumRow(**told, created_at=tx.now))
        tx.session.flush()
        newest = tx.session.scalar(select(func.max(CurriculumRow.id))) or 0
    first = viewer.get("/curriculum?mix=1")
    assert "This is mix 1" in first
    assert f"mix {newest}</a>" in first
    assert f"mix {newest - 20}</a>" not in first
    assert f"mix {newest - 20}</a>" in viewer.get(f"/curriculum?before={newest - 14}")
    assert "there is no mix 999" in viewer.get("/curriculum?mix=999", status=409)
    assert "no number" in viewer.get("/curriculum?mix=x", status=409)


def test_tasks_say_how_long_they_are_taught(viewer: Viewer) -> None:
    text = viewer.get("/curriculum")
    assert "used up: the last 6 checkpoints were no better" in text
    assert 'href="/data/tasks/menus"' in text


def test_a_home_with_tasks_alone_says_what_the_curriculum_does_for_them(viewer: Viewer, history: Ledger) -> None:
    with history.write() as tx:
        tx.session.execute(delete(CurriculumRow))
    own = viewer.settings.model_copy(update={"suites": viewer.settings.suites.model_copy(update={"families": ()})})
    text = Viewer(viewer.settings.home, history, own).get("/curriculum")
    assert "the model learns from your tasks alone" in text
    assert "menus" in text
    with history.write() as tx:
        tx.session.execute(delete(TaskRow))
    assert "add rows of your own" in Viewer(viewer.settings.home, history, own).get("/curriculum")


def test_empty_ledgers_say_what_comes(tmp_path: Path) -> None:
    ledger = Ledger(Settings(home=tmp_path / "new").ledger_url)
    migrate(ledger)
    viewer = Viewer(tmp_path / "new", ledger)
    assert "There is no curriculum yet" in viewer.get("/curriculum")
    text = viewer.get("/mistakes")
    assert "Nothing has been mined yet" in text
    assert "No lessons yet" in text
    ledger.close()


def test_weak_items_are_shown_with_question_gold_and_answer(viewer: Viewer) -> None:
    text = viewer.get("/mistakes?checkpoint=4")
    assert "answer of #4" in text
    assert "1–20 of 40 items" in text
    assert "near another weak item" in text
    one = viewer.get("/mistakes?checkpoint=4&kind=forgotten")
    assert "overconfident wrong</span>" not in one.partition('id="items"')[2]
    assert "21–40 of 40 items" in viewer.get("/mistakes?checkpoint=4&items=2")


def test_whether_mining_and_lessons_helped_is_said_with_intervals(viewer: Viewer) -> None:
    text = viewer.get("/mistakes?checkpoint=4")
    assert "18 of 40 mined items were still failed, and 11 of 40 random items" in text
    assert "reverse/2 near" in text
    assert "+4.0 to +36.0" in text
    assert "helped" in text


def test_what_is_not_known_or_cannot_be_read_is_said(viewer: Viewer, history: Ledger) -> None:
    assert "no checkpoint '99'" in viewer.get("/mistakes?checkpoint=99", status=409)
    assert "no weak item is 'odd'" in viewer.get("/mistakes?kind=odd", status=409)
    with history.write() as tx:
        mined = tx.session.scalars(select(MinedRow).where(MinedRow.count > 0)).first()
        assert mined is not None
        mined.artifact = "0" * 64
        number = int(mined.checkpoint_id[1:5])
    assert "The items cannot be read" in viewer.get(f"/mistakes?checkpoint={number}")


def test_an_item_of_another_format_is_no_fault_of_the_page(viewer: Viewer, history: Ledger) -> None:
    store = artifact_store(viewer.settings)
    with history.write() as tx:
        mined = tx.session.scalars(select(MinedRow).where(MinedRow.count > 0)).first()
        assert mined is not None
        mined.artifact = store.publish_lines(['{"example": 7}', "[]"], "batch", {}).id
        number = int(mined.checkpoint_id[1:5])
    assert "has another format" in viewer.get(f"/mistakes?checkpoint={number}")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    ledger = Ledger(Settings(home=synthetic_home(tmp_path / "bad", hostile=True)).ledger_url)
    viewer = Viewer(tmp_path / "bad", ledger)
    for path in ("/curriculum", "/mistakes", "/mistakes?checkpoint=4", "/settings?q=<script>window.xss"):
        raw = viewer.client.get(path).text
        assert "<script>window" not in raw
        assert "\x1b" not in raw
    ledger.close()


def test_a_scale_places_values_between_its_ends() -> None:
    scale = Scale.of([-1.0, 3.0])
    assert [scale.place(value) for value in (-1.0, 0.0, 3.0, 9.0)] == [0.0, 25.0, 100.0, 100.0]
    assert Scale.of([]).place(0.0) == 50.0
