"""The page Journal: events in words, filters, pages by sequence number, and the chain of one event."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.events import CATALOGUE, Event, catalogue
from ratchet.ledger import Ledger
from ratchet.ledger.tables import CheckpointRow, OutboxRow
from ratchet.views import causes, journal
from ratchet.views.event_words import ABSENT, WORDS, Names, describe
from sqlalchemy import select

from tests.support.synthetic_ledger import Size, build
from tests.support.viewer import Viewer


@pytest.fixture
def viewer(home: Path, ledger: Ledger) -> Viewer:
    return Viewer(home, ledger)


def emit(ledger: Ledger, *events: Event) -> None:
    with ledger.write() as tx:
        for event in events:
            tx.emit(event)


def checkpoint(ledger: Ledger, ordinal: int) -> str:
    with ledger.read() as session:
        return session.scalars(select(CheckpointRow.id).where(CheckpointRow.ordinal == ordinal)).one()


def test_every_event_of_the_catalogue_has_words() -> None:
    assert {name for name, kind in CATALOGUE.items() if kind.__module__ == catalogue.__name__} == {*WORDS}


def test_words_name_no_field_that_an_event_lacks(empty_ledger: Ledger) -> None:
    values = {"reason": "why", "severity": "mild", "task": "menus", "pools": ("eval",)}
    made = []
    for name in WORDS:
        kind = CATALOGUE[name]
        fields = {
            field: values.get(field, "x" * 8) for field in kind.model_fields if field not in ("id", "at", "cause")
        }
        numbers = {field: 7 for field, info in kind.model_fields.items() if info.annotation is int}
        made.append(kind(**{**fields, **numbers}))
    emit(empty_ledger, *made)
    with empty_ledger.read() as session:
        described = describe(session.scalars(select(OutboxRow)).all(), Names(session))
    assert [each.row.name for each in described if ABSENT in each.text] == []


def test_events_are_told_newest_first_with_links(viewer: Viewer, ledger: Ledger) -> None:
    cid = checkpoint(ledger, 2)
    emit(ledger, catalogue.CheckpointBroken(checkpoint_id=cid, reason="all answers are alike"))
    text = viewer.get("/journal")
    assert 'found <a href="/checkpoints/2">#2</a> broken: all answers are alike' in text
    assert text.index("all answers are alike") < text.index("saved <a")
    assert 'href="/systems/testing"' in text
    assert f'href="/checkpoints/{cid}"' in text, "the fields link ids"


def test_filters_by_name_subject_and_text(viewer: Viewer, ledger: Ledger) -> None:
    one, two = checkpoint(ledger, 1), checkpoint(ledger, 2)
    emit(
        ledger,
        catalogue.DeploymentRefused(checkpoint_id=one, reason="too little gain"),
        catalogue.DeploymentRefused(checkpoint_id=two, reason="100% worse"),
    )
    assert "too little gain" not in viewer.get("/journal?name=deployment.refused&about=%232")
    assert "100% worse" in viewer.get("/journal?name=deployment.refused&about=2")
    assert "too little gain" in viewer.get("/journal?about=deployment&text=LITTLE")
    assert "too little gain" not in viewer.get("/journal?about=testing")
    assert "100% worse" in viewer.get("/journal?text=100%25")
    assert "No event matches." in viewer.get("/journal?text=x_y")
    assert "there is no event 'nope'" in viewer.get("/journal?name=nope", status=409)
    assert "nothing is known by 'soup'" in viewer.get("/journal?about=soup", status=409)
    assert "no checkpoint '99'" in viewer.get("/journal?about=%2399", status=409)
    assert "no number" in viewer.get("/journal?before=-1", status=409)


def test_pages_follow_each_other_without_a_gap_while_events_come(empty_ledger: Ledger) -> None:
    emit(empty_ledger, *(catalogue.QueueLow(depth=n, low_water=9) for n in range(120)))
    seen: list[int] = []
    wanted = journal.JournalFilter()
    while True:
        with empty_ledger.read() as session:
            page = journal.read_journal(session, wanted)
        seen += [event.fields["depth"] for event in page.events]
        emit(empty_ledger, catalogue.QueueLow(depth=999, low_water=9))
        if page.older is None:
            break
        wanted = journal.JournalFilter(before=page.older)
    assert seen == list(range(119, -1, -1))


def test_a_rare_event_is_searched_for_stretch_by_stretch(empty_ledger: Ledger) -> None:
    emit(empty_ledger, catalogue.TaskUsedUp(task="menus", reason="enough"))
    emit(empty_ledger, *(catalogue.QueueLow(depth=n, low_water=9) for n in range(30)))
    with empty_ledger.read() as session:
        first = journal.read_journal(session, journal.JournalFilter(name="task.used_up"), stretch=20)
        assert (list(first.events), first.searched_to is not None) == ([], True)
        second = journal.read_journal(
            session, journal.JournalFilter(name="task.used_up", before=first.older), stretch=20
        )
    assert [event.text for event in second.events] == ["menus is used up: enough"]
    assert second.older is None


def test_an_event_shows_its_causes_to_the_root_and_its_effects(viewer: Viewer, ledger: Ledger) -> None:
    root = catalogue.BatchSubmitted(batch_id="b" * 16)
    queued = catalogue.BatchQueued(batch_id="b" * 16, cause=root.id)
    saved = catalogue.CheckpointSaved(checkpoint_id=checkpoint(ledger, 1), step=5, cause=queued.id)
    tested = catalogue.CheckpointEvaluated(checkpoint_id=checkpoint(ledger, 1), pools=("eval",), cause=saved.id)
    emit(ledger, root, queued, saved, tested)
    text = viewer.get(f"/journal/{queued.id}")
    before, _, after = text.partition("What it led to")
    assert f'href="/journal/{root.id}"' in before
    assert after.index(saved.id) < after.index(tested.id)
    assert "a chain begins here" in viewer.get(f"/journal/{root.id}")
    assert "No other event so far" in viewer.get(f"/journal/{tested.id[:12]}"), "the beginning of an id is enough"
    assert "there is no event" in viewer.get("/journal/nope", status=404)


def test_chains_are_limited_and_end_where_events_cause_each_other(empty_ledger: Ledger) -> None:
    made: list[Event] = []
    for n in range(60):
        made.append(catalogue.QueueLow(depth=n, low_water=9, cause=made[-1].id if made else None))
    emit(empty_ledger, *made)
    emit(empty_ledger, catalogue.QueueLow(id="a" * 32, depth=1, low_water=2, cause="c" * 32))
    emit(empty_ledger, catalogue.QueueLow(id="c" * 32, depth=1, low_water=2, cause="a" * 32))
    with empty_ledger.read() as session:
        found = causes.chain(session, made[-1].id, 10)
        assert [row.event_id for row in found] == [each.id for each in made[-10:]]
        assert found[0].cause == made[-11].id
        effect = causes.effects(session, made[0].id, limit=5)
        deep = 0
        while effect:
            deep, last, effect = deep + 1, effect[0], effect[0].effects
        assert (deep, last.more) == (5, True)
        assert len(causes.chain(session, "a" * 32, 10)) <= 10
        assert [each.event.event_id for each in causes.effects(session, "a" * 32)] == ["c" * 32]
        assert causes.chain(session, "nope") == []


def test_an_empty_journal_says_what_fills_it(home: Path, empty_ledger: Ledger) -> None:
    assert "Nothing has happened yet" in Viewer(home, empty_ledger).get("/journal")


def test_hostile_text_stays_text(home: Path, empty_ledger: Ledger) -> None:
    build(empty_ledger, None, Size(events=2_000), hostile=True)
    viewer = Viewer(home, empty_ledger)
    with empty_ledger.read() as session:
        broken = session.scalars(select(OutboxRow.event_id).where(OutboxRow.name == "checkpoint.broken")).first()
    for path in ("/journal", "/journal?name=deployment.refused", "/journal?text=reason", f"/journal/{broken}"):
        raw = viewer.client.get(path).text
        assert "<script>window" not in raw
        assert "\x1b" not in raw
    assert "<script>" not in viewer.client.get("/journal?about=<script>").text.partition("<main")[2]
