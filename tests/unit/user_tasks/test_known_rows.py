"""Rows that a task has been given to train on are never held out: under no other name, and in no other wording."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.data.example import Example, Message
from ratchet.errors import ChangedMeanwhile, DataError
from ratchet.ledger.tables import BatchRow, TaskRow
from ratchet.user_tasks.add import Choice, Prepared, commit, prepare
from ratchet.user_tasks.known_rows import near_given

from tests.support.home import Home, small_home

DATA = Path(__file__).parents[2] / "data"
GIVEN = [json.loads(line) for line in (DATA / "gsm8k_200.jsonl").read_text().splitlines()]
MATHS = [{"question": row["user_prompt"], "answer": row["expected_answer"]} for row in GIVEN]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "home") as made:
        yield made


def prepared(home: Home, name: str, rows: list[dict[str, str]], task: str) -> Prepared:
    file = home.settings.home / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = prepare(home.settings, home.ledger, home.artifacts, file, file.name, Choice(task=task))
    assert found is not None
    return found


def added(home: Home, name: str, rows: list[dict[str, str]], task: str) -> str:
    return commit(home.settings, home.ledger, home.artifacts, prepared(home, name, rows, task))


def submitted_rows(home: Home, batch_id: str) -> list[Example]:
    with home.ledger.read() as session:
        artifact = session.get_one(BatchRow, batch_id).submitted_artifact
    return [Example.model_validate_json(line) for line in home.artifacts.open_lines(artifact)]


def held(found: Prepared) -> list[str]:
    return [row.question for items in found.split.held_out.values() for row in items]


def test_the_same_rows_under_a_second_name_are_refused_with_the_name_of_the_first(home: Home) -> None:
    added(home, "first.jsonl", MATHS, "maths")
    with pytest.raises(DataError, match=r"the task maths has 200 of these rows already.*`ratchet data set maths`"):
        prepared(home, "second.jsonl", MATHS, "sums")


def test_a_second_task_holds_out_only_what_the_first_does_not_train_on(home: Home) -> None:
    added(home, "first.jsonl", MATHS[:120], "maths")
    found = prepared(home, "second.jsonl", MATHS[60:], "sums")
    assert set(held(found)) <= {row["question"] for row in MATHS[120:]}
    assert (found.split.rows, found.split.known["maths"]) == (80, 60)


def test_rows_that_were_rejected_as_a_whole_may_be_held_out_under_another_name(home: Home) -> None:
    batch = added(home, "first.jsonl", MATHS, "maths")
    with home.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch).state = "rejected"
    found = prepared(home, "second.jsonl", MATHS, "sums")
    assert held(found)
    assert found.split.known["maths"] < 200


@pytest.mark.parametrize("change", [{"question": " Please."}, {"system": "You are a helpful assistant for pupils."}])
@pytest.mark.parametrize("task", ["maths", "sums"])
def test_nothing_is_held_out_that_was_trained_on_in_nearly_the_same_words(
    home: Home, change: dict[str, str], task: str
) -> None:
    batch = added(home, "first.jsonl", MATHS[:120], "maths")
    again = [{**row, **{key: row.get(key, "") + more for key, more in change.items()}} for row in MATHS]
    found = prepared(home, "second.jsonl", again, task)
    trained = {row.question + change.get("question", "") for row in submitted_rows(home, batch)}
    assert found.split.known["maths"] >= len(trained) > 50
    assert len(held(found)) > 20
    assert not trained & set(held(found))


def test_of_two_commands_that_add_to_one_task_at_once_the_second_is_to_try_again(home: Home) -> None:
    added(home, "first.jsonl", MATHS[:60], "maths")
    one, two = (prepared(home, f"{n}.jsonl", MATHS[60 * n : 60 * n + 60], "maths") for n in (1, 2))
    commit(home.settings, home.ledger, home.artifacts, one)
    with home.ledger.read() as session:
        before = dict(session.get_one(TaskRow, "maths").held_out)
    with pytest.raises(ChangedMeanwhile, match="try again"):
        commit(home.settings, home.ledger, home.artifacts, two)
    with home.ledger.read() as session:
        assert dict(session.get_one(TaskRow, "maths").held_out) == before


def test_of_two_commands_that_add_the_same_rows_under_two_names_at_once_the_second_is_to_try_again(home: Home) -> None:
    one, two = (prepared(home, f"{name}.jsonl", MATHS, name) for name in ("maths", "sums"))
    commit(home.settings, home.ledger, home.artifacts, one)
    with pytest.raises(ChangedMeanwhile, match="try again"):
        commit(home.settings, home.ledger, home.artifacts, two)


def test_the_same_text_under_another_instruction_is_another_row() -> None:
    text = "The hall is open from Monday to Friday, and on public holidays it stays closed for the whole day."

    def told(system: str, answer: str) -> Example:
        turns = (("system", system), ("user", text), ("assistant", answer))
        return Example(messages=tuple(Message(role=role, content=said) for role, said in turns))  # type: ignore[arg-type]

    german, french = told("Translate this into German.", "Die Halle"), told("Translate this into French.", "La salle")
    assert near_given([german], [("french", french)]) == {}
    assert near_given([german], [("plain", Example.ask(text, "Yes"))]) == {0: "plain"}
    assert near_given([german], [("german", told("Into German, please!", "Die Halle"))]) == {0: "german"}
