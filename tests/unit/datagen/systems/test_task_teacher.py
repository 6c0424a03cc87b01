"""A teacher behind a real server writes rows for a user's task."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from datagen.systems.generation import SYSTEM as GENERATION
from datagen.task_teacher import EMPTY_HANDED, can_teacher_go_on
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.data.example import Example
from ratchet.ledger.tables import BatchRow, SpendingRow, TaskRow, VerdictRow
from ratchet.tasks.graders import text_key
from ratchet.user_tasks.add import Choice
from ratchet.user_tasks.supply import stored_batches

from tests.support.home import Home
from tests.support.user_tasks import home_of_tasks, task_row

from .queued import batches, refill_numbers, rows

if TYPE_CHECKING:
    from conftest import TeacherServer

BABI = "babi_qa1_100.jsonl"
NAMES = ("Anna", "Bert", "Carl", "Dora", "Emil", "Fritz", "Gerda", "Hans")
PLACES = ("kitchen", "garden", "hallway", "office")


class Writer:
    """What the server answers: questions about people in places, and the place as an answer."""

    def __init__(self) -> None:
        self.numbers = count()
        self.lock = threading.Lock()
        self.wavers = False
        self.copies: str | None = None
        self.only_reasons = False
        self.asked: list[dict[str, Any]] = []

    def __call__(self, body: dict[str, Any]) -> tuple[str, str]:
        said = body["messages"][-1]["content"]
        with self.lock:
            self.asked.append(body)
            number = next(self.numbers)
        if "Write one more question" in said:
            name, place = NAMES[number % len(NAMES)], PLACES[number % len(PLACES)]
            return self.copies or f"{name} took ball {number} and went to the {place}. Where is {name}?", "stop"
        place = next((place for place in PLACES if place in said), "nowhere")
        if self.only_reasons and place == PLACES[0]:
            return "First, who is where?", "reasoned"
        return (f"{place}{number}" if self.wavers else place), "stop"


@pytest.fixture
def writer(teacher_server: TeacherServer) -> Writer:
    found = Writer()
    teacher_server.answer = found  # type: ignore[method-assign]
    return found


def settings(teacher_server: TeacherServer, **source: Any) -> dict[str, Any]:
    options = {"base_url": teacher_server.url, "model": "big", "tasks": ["babi"]}
    return {
        "generation": {"sources": [{"name": "teacher", "options": options, **source}]},
        "inference": {"concurrency": 8},
    }


@pytest.fixture
def taught(tmp_path: Path, teacher_server: TeacherServer, writer: Writer) -> Iterator[Home]:
    """A task that has been passed over once."""
    told = settings(teacher_server)
    with home_of_tasks(tmp_path / "own", {BABI: Choice(task="babi")}, **told) as home:
        home.bus(CORRECTION).sweep()
        passed_once(home)
        yield home


def passed_once(home: Home) -> None:
    with home.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").passes = 1.0


def ask(home: Home) -> None:
    """The lane that asks, and the gate."""
    lane = GENERATION.lane("ask")
    home.bus(type(GENERATION)("generation", "4090", "", GENERATION.emits, 1.0, (lane,)), CORRECTION).sweep()
    assert home.dead() == []


def written(home: Home) -> list[Example]:
    return [row for batch in batches(home) if batch.origin == "generation" for row in rows(home, batch)]


def test_new_rows_are_written_from_shown_ones_verified_and_stored(taught: Home, writer: Writer) -> None:
    ask(taught)
    with taught.ledger.read() as session:
        stored = stored_batches(session, "babi")
    own, new = stored
    assert (new.origin, new.state, new.quarantined) == ("generation", "stored", 0)
    assert new.examples == 32
    rows_written = written(taught)
    assert {row.metadata["source"] for row in rows_written} == {"teacher:big"}
    assert all(str(row.answer) in row.question for row in rows_written)
    assert {row.metadata["grader"] for row in rows_written} == {rows(taught, own)[0].metadata["grader"]}
    assert not {text_key(row) for row in rows(taught, own)} & {text_key(row) for row in rows_written}
    assert len({text_key(row) for row in rows_written}) == len(rows_written)
    assert task_row(taught, "babi").passes == 0.0


def test_the_teacher_sees_training_rows_alone_and_answers_in_their_style(taught: Home, writer: Writer) -> None:
    ask(taught)
    held = {item.question for pool in ("probe", "eval", "confirm") for item in taught.suite_items(pool)}
    assert not [body for body in writer.asked for turn in body["messages"] if turn["content"] in held]
    answering = [body for body in writer.asked if "Write one more" not in body["messages"][-1]["content"]]
    assert [turn["role"] for turn in answering[0]["messages"]] == ["user", "assistant"] * 4 + ["user"]


def test_answers_that_do_not_agree_are_refused_and_paid_for(taught: Home, writer: Writer) -> None:
    writer.wavers = True
    ask(taught)
    assert written(taught) == []
    numbers = refill_numbers(taught)[-1]
    assert numbers["outcome"] == "nothing made"
    assert numbers["refused"] == {"not_agreed": 40}
    with taught.ledger.read() as session:
        used = session.query(SpendingRow).all()
    assert sum(row.requests for row in used) == len(writer.asked) == numbers["cost"]["requests"]


def test_answers_of_reasoning_alone_are_counted_as_such(taught: Home, writer: Writer) -> None:
    writer.only_reasons = True
    ask(taught)
    refused = refill_numbers(taught)[-1]["refused"]
    assert refused["reasoning_only"] > 0
    assert not refused.keys() & {"truncated", "empty"}


def test_a_question_that_the_task_has_or_that_is_held_out_is_not_answered(taught: Home, writer: Writer) -> None:
    with taught.ledger.read() as session:
        own = rows(taught, stored_batches(session, "babi")[0])[0].question
    for question in (own, taught.suite_items("eval")[0].question):
        writer.copies = question
        writer.asked.clear()
        ask(taught)
        assert all("Write one more" in body["messages"][-1]["content"] for body in writer.asked)
        with taught.ledger.write() as tx:
            for row in tx.session.query(VerdictRow).filter(VerdictRow.subject_kind == "ask"):
                row.created_at -= 10_000
    refused = [numbers["refused"] for numbers in refill_numbers(taught) if numbers.get("generator") == "teacher"]
    assert [set(each) for each in refused] == [{"repeated"}, {"held_out"}]


def test_a_teacher_that_writes_nothing_usable_is_given_up_for_the_task(taught: Home, writer: Writer) -> None:
    writer.wavers = True
    for _ in range(EMPTY_HANDED + 2):
        ask(taught)
        with taught.ledger.write() as tx:
            for row in tx.session.query(VerdictRow).filter(VerdictRow.subject_kind == "ask"):
                row.created_at -= 10_000
    asked = [numbers for numbers in refill_numbers(taught) if numbers.get("generator") == "teacher"]
    assert len(asked) == EMPTY_HANDED
    with taught.ledger.read() as session:
        assert not can_teacher_go_on(session, taught.settings, session.get_one(TaskRow, "babi"))


def test_the_teacher_waits_for_the_first_pass_and_has_a_cap(taught: Home, writer: Writer) -> None:
    with taught.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").passes = 0.9
    ask(taught)
    assert writer.asked == []
    for _ in range(8):
        passed_once(taught)
        ask(taught)
    with taught.ledger.read() as session:
        own, *more = stored_batches(session, "babi")
    assert sum(batch.examples for batch in more) == 3 * own.examples


def test_free_text_is_kept_unverified_up_to_as_many_rows_as_the_users_own(
    tmp_path: Path, teacher_server: TeacherServer, writer: Writer
) -> None:
    writer.wavers = True
    with home_of_tasks(
        tmp_path / "free", {BABI: Choice(task="babi", metric="loss")}, **settings(teacher_server)
    ) as home:
        home.bus(CORRECTION).sweep()
        for _ in range(4):
            passed_once(home)
            ask(home)
        with home.ledger.read() as session:
            own, *more = stored_batches(session, "babi")
        assert 0 < sum(batch.examples for batch in more) <= own.examples
        assert not any(batch.quarantined for batch in more)


def test_over_its_daily_tokens_the_teacher_is_not_asked(
    tmp_path: Path, teacher_server: TeacherServer, writer: Writer
) -> None:
    told = settings(teacher_server, daily_tokens=1)
    with home_of_tasks(tmp_path / "poor", {BABI: Choice(task="babi")}, **told) as home:
        home.bus(CORRECTION).sweep()
        passed_once(home)
        ask(home)
        with home.ledger.read() as session:
            assert session.query(BatchRow).filter(BatchRow.origin == "generation").count() == 1
        passed_once(home)
        ask(home)
        with home.ledger.read() as session:
            assert session.query(BatchRow).filter(BatchRow.origin == "generation").count() == 1
            assert can_teacher_go_on(session, home.settings, session.get_one(TaskRow, "babi"))
