"""Adding a data set as a task: to a home that has not run yet, and to one that is set up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import AlreadySubmitted, PreconditionFailed
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS
from ratchet.ledger.suites import current, unanswered_requests
from ratchet.ledger.tables import BatchRow, EvaluationRequestRow, SuiteRow, TaskRow
from ratchet.tasks.graders import text_key
from ratchet.user_tasks.add import Choice, Prepared, commit, prepare
from ratchet.user_tasks.suites import held_out_rows
from sqlalchemy import select

from tests.support.home import Home, small_home

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "home") as made:
        yield made


def prepared(home: Home, file: Path, source: str | None = None, **chosen: str) -> Prepared:
    choice = Choice(**chosen)  # type: ignore[arg-type]
    found = prepare(home.settings, home.ledger, home.artifacts, file, source or file.name, choice)
    assert found is not None
    return found


def added(home: Home, file: Path, source: str | None = None, **chosen: str) -> str:
    batch = commit(home.settings, home.ledger, home.artifacts, prepared(home, file, source, **chosen))
    assert batch is not None, "the file has rows to train on"
    return batch


def suite_keys(home: Home, family: str) -> dict[str, set[str]]:
    with home.ledger.read() as session:
        suites = {pool: load_suite(home.artifacts, current(session, pool)) for pool in POOLS}
    return {pool: {text_key(i) for i in suite.items if i.family == family} for pool, suite in suites.items()}


def submitted_rows(home: Home, batch_id: str) -> list[Example]:
    with home.ledger.read() as session:
        artifact = session.get_one(BatchRow, batch_id).submitted_artifact
    rows = read_examples(home.artifacts.fetch(artifact) / "rows.jsonl")
    return [row for _, row in rows if isinstance(row, Example)]


def test_a_task_has_held_out_rows_in_the_suites_from_the_moment_it_is_added(home: Home) -> None:
    batch_id = added(home, DATA / "babi_qa1_100.jsonl")
    held = suite_keys(home, "babi_qa1")
    assert all(held.values())
    trained = {text_key(row) for row in submitted_rows(home, batch_id)}
    assert not trained & set().union(*held.values())
    with home.ledger.read() as session:
        task = session.get_one(TaskRow, "babi_qa1")
        assert (task.metric, task.kind, task.state) == ("accuracy", "user", "active")
        assert task.held_rows == sum(map(len, held.values()))
        assert session.get_one(BatchRow, batch_id).task == "babi_qa1"
        assert {row.checkpoint_id for row in session.scalars(select(EvaluationRequestRow))} == {home.base_id()}


def test_a_second_file_of_a_task_moves_no_row_between_its_sides(home: Home, tmp_path: Path) -> None:
    lines = (DATA / "babi_qa1_100.jsonl").read_text().splitlines(keepends=True)
    half = tmp_path / "half.jsonl"
    half.write_text("".join(lines[:50]))
    first = added(home, half)
    held = suite_keys(home, "babi_qa1")
    second = added(home, DATA / "babi_qa1_100.jsonl")
    trained = {text_key(row) for batch in (first, second) for row in submitted_rows(home, batch)}
    now = suite_keys(home, "babi_qa1")
    assert all(held[pool] <= now[pool] for pool in POOLS)
    assert not trained & set().union(*now.values())
    with home.ledger.read() as session:
        task = session.get_one(TaskRow, "babi_qa1")
        assert task.version == 1
        assert task.source == "half.jsonl, babi_qa1_100.jsonl"


def test_the_same_file_again_is_refused_and_changes_nothing(home: Home) -> None:
    added(home, DATA / "babi_qa1_100.jsonl")
    before = suite_keys(home, "babi_qa1")
    with pytest.raises(PreconditionFailed, match="submitted before"):
        added(home, DATA / "babi_qa1_100.jsonl")
    assert suite_keys(home, "babi_qa1") == before


def test_two_tasks_are_both_in_the_suites_and_share_no_item(home: Home) -> None:
    added(home, DATA / "babi_qa1_100.jsonl")
    added(home, DATA / "gsm8k_200.jsonl")
    for family in ("babi_qa1", "gsm8k", "chain_sum"):
        with home.ledger.read() as session:
            suites = [load_suite(home.artifacts, current(session, pool)) for pool in POOLS]
        assert all(any(item.family == family for item in suite.items) for suite in suites)
    with home.ledger.read() as session:
        assert session.query(SuiteRow).where(SuiteRow.retired_at.is_(None)).count() == 3


def test_after_two_renewals_in_succession_an_undecided_checkpoint_is_tested_on_the_last_suites(home: Home) -> None:
    """It has no record on the suites between, so that nothing else would ask for it again."""
    base, checkpoint = home.base_id(), home.add_checkpoint()
    for pool in ("probe", "eval"):
        home.add_record(checkpoint, pool, lambda _item: True)
    added(home, DATA / "babi_qa1_100.jsonl")
    added(home, DATA / "gsm8k_200.jsonl")
    with home.ledger.read() as session:
        in_force = [current(session, pool).id for pool in ("probe", "eval")]
        asked = {(row.checkpoint_id, row.suite_id) for row in session.scalars(unanswered_requests())}
    assert asked == {(tested, suite) for tested in (base, checkpoint) for suite in in_force}


def test_free_text_becomes_a_task_of_losses_and_can_be_named(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "Letters of 2024.jsonl"
    text = "Thank you for your letter of last week about the broken window of your room, which we have repaired."
    file.write_text("".join(Example.ask(f"Letter {n * 7919}", f"{text} {n}").to_line() + "\n" for n in range(60)))
    batch = added(home, file)
    assert {row.metadata["metric"] for row in submitted_rows(home, batch)} == {"loss"}
    with home.ledger.read() as session:
        assert session.get_one(TaskRow, "letters-of-2024").metric == "loss"
        items = held_out_rows(session, home.artifacts)["confirm"]
    assert {item.metadata["metric"] for item in items} == {"loss"}


def test_a_contradiction_to_a_known_task_is_refused_with_the_way_out(home: Home) -> None:
    added(home, DATA / "babi_qa1_100.jsonl")
    with pytest.raises(PreconditionFailed, match="ratchet data set babi_qa1 --metric loss"):
        prepared(home, DATA / "gsm8k_200.jsonl", task="babi_qa1", metric="loss")


def test_rows_that_cannot_be_read_go_to_the_gate_and_none_is_lost(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    shutil.copyfile(DATA / "babi_qa1_100.jsonl", file)
    with file.open("a") as more:
        more.write('{"question": "no answer here"}\n{broken\n')
    found = prepared(home, file)
    assert len(found.unreadable) == 2
    batch = commit(home.settings, home.ledger, home.artifacts, found)
    with home.ledger.read() as session:
        row = session.get_one(BatchRow, batch)
        path = home.artifacts.fetch(row.submitted_artifact) / "rows.jsonl"
        lines = path.read_text().splitlines()
        assert row.submitted_examples == len(lines)
    assert '{"question": "no answer here"}' in lines
    assert "{broken" in lines


def test_a_home_that_has_not_run_yet_keeps_the_task_for_its_first_suites(tmp_path: Path) -> None:
    from ratchet.artifacts import ArtifactStore
    from ratchet.ledger import Ledger
    from ratchet.ledger.migrate import migrate
    from ratchet.run.bootstrap import bootstrap
    from ratchet.settings import Settings

    from tests.support.home import SMALL, made_up_model

    settings = Settings(home=tmp_path / "home", **{**SMALL, "suites": {**SMALL["suites"], "families": []}})
    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    home = Home(settings, ledger, ArtifactStore(settings.artifact_url))
    added(home, DATA / "babi_qa1_100.jsonl")
    bootstrap(settings, ledger, home.artifacts, lambda _settings, spec: made_up_model(spec))
    with ledger.read() as session:
        suites = {pool: load_suite(home.artifacts, current(session, pool)) for pool in POOLS}
    assert {item.family for suite in suites.values() for item in suite.items} == {"babi_qa1"}
    ledger.close()


def test_a_file_in_the_inbox_becomes_a_task_of_its_name(home: Home) -> None:
    from miner.systems.correction import SYSTEM

    file = home.settings.inbox / "Rooms and people.jsonl"
    file.parent.mkdir()
    lines = (DATA / "babi_qa1_100.jsonl").read_text().replace('"skill": "babi_qa1", ', "")
    file.write_text(lines)
    os.utime(file, (1, 1))
    home.bus(SYSTEM).sweep()
    with home.ledger.read() as session:
        task = session.get_one(TaskRow, "rooms-and-people")
        assert (task.metric, task.source) == ("accuracy", "Rooms and people.jsonl")
    assert all(suite_keys(home, "rooms-and-people").values())
    os.utime(file, (2, 2))
    home.bus(SYSTEM).sweep()
    assert "known" in home.verdicts("correction").values()


def test_the_rows_at_the_gate_are_counted_as_they_are_written_also_where_a_held_out_one_is_repeated(
    home: Home, tmp_path: Path
) -> None:
    file = tmp_path / "twice.jsonl"
    file.write_text(2 * (DATA / "babi_qa1_100.jsonl").read_text())
    batch = added(home, file)
    with home.ledger.read() as session:
        assert session.get_one(BatchRow, batch).submitted_examples == len(submitted_rows(home, batch))


def test_rows_that_come_one_by_one_are_held_out_or_trained_on_and_never_refused(home: Home, tmp_path: Path) -> None:
    added(home, DATA / "babi_qa1_100.jsonl")
    with home.ledger.read() as session:
        before = session.get_one(TaskRow, "babi_qa1")
    batches: list[str | None] = []
    for word in ("amber", "birch", "cedar", "delta", "ember", "frost"):
        file = tmp_path / f"{word}.jsonl"
        file.write_text(
            Example.ask(f"Which colour has the {word} at the end of the {word} road?", word).to_line() + "\n"
        )
        found = prepared(home, file, task="babi_qa1")
        batches.append(commit(home.settings, home.ledger, home.artifacts, found))
        again = prepared(home, file, task="babi_qa1")
        with pytest.raises(AlreadySubmitted):
            commit(home.settings, home.ledger, home.artifacts, again)
    with home.ledger.read() as session:
        after = session.get_one(TaskRow, "babi_qa1")
    assert None in batches
    assert after.rows == before.rows + 6
    assert after.held_rows - before.held_rows == batches.count(None)
