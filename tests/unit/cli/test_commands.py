"""The commands over a ledger with a story: what they print, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ratchet.cli.main import COMMANDS
from ratchet.cli.status import heading
from ratchet.ledger import Ledger
from ratchet.ledger.tables import BatchRow, OutboxRow, SuiteRow, TaskRow, VerdictRow
from ratchet.run.run_lock import RunHolder
from sqlalchemy import select

from tests.support.story import checkpoint_id

from .running import ratchet


def test_every_command_explains_itself() -> None:
    for name in COMMANDS:
        shown = ratchet(name, "--help").stdout
        assert len(shown.split()) > 15, name


def test_the_help_lists_every_command() -> None:
    shown = ratchet("--help").stdout
    assert [name for name in COMMANDS if f" {name} " not in shown] == []


def test_a_ratchet_error_is_one_line_and_exit_code_2(home: Path) -> None:
    result = ratchet("status", code=2)
    assert "Traceback" not in result.output
    assert "`ratchet run`" in result.stderr


def test_a_wrong_setting_is_named(home: Path) -> None:
    assert "queue.low_water" in ratchet("--set", "queue.low_water=none", "config", "show", code=2).stderr
    assert "sections are" in ratchet("--set", "cue.low_water=1", "config", "show", code=2).stderr


def test_status_shows_whether_a_run_is_active(home: Path) -> None:
    assert heading(RunHolder(7), {"box": 3}) == "running, process 7"
    assert heading(RunHolder(None), {}) == "running, a process that run.lock does not name"
    assert heading(None, {"box": 3, "other": 8}) == "running, 11 workers on box, other"
    assert heading(None, {"box": 1}) == "running, 1 worker on box"
    ratchet("migrate")
    assert "not running: `ratchet run`" in ratchet("status").stdout


def test_status_shows_what_is_live_and_the_queue(ledger: Ledger) -> None:
    shown = ratchet("status").stdout
    assert "running, 3 workers on box" in shown
    assert "#3" in shown
    assert "20,800 examples" in shown
    values = json.loads(ratchet("status", "--json").stdout)
    assert values["live"]["desired"] == 3
    assert f"files of #3: {values['live_folder']}" in shown.replace("\n", "")
    assert values["queue"]["depth"] == 20_800
    assert values["checkpoints"][0]["levels"]["chain_sum/1"] == {"correct": 49, "n": 50}


def test_curriculum_shows_the_mix_and_the_state_of_the_experiment(ledger: Ledger) -> None:
    shown = ratchet("show", "curriculum").stdout
    assert "chain_sum 3" in shown
    assert "adaptive beats progressive by 0.80 ± 0.70 points per 100k tokens, P = 0.97." in shown
    assert "#4 to #5" in shown
    values = json.loads(ratchet("show", "curriculum", "--json").stdout)
    assert values["experiment"]["leader"] == "adaptive"
    assert values["newest_trials"][0]["points"] == 2.0


def test_curriculum_without_a_plan_prints_a_message(empty_ledger: Ledger) -> None:
    assert "needs an evaluated checkpoint" in ratchet("show", "curriculum").stdout
    assert json.loads(ratchet("show", "curriculum", "--json").stdout) == {"curriculum_id": None, "trials": 0}


def test_leaderboard_ranks_by_accuracy_with_its_uncertainty(ledger: Ledger) -> None:
    rows = json.loads(ratchet("show", "leaderboard", "--json").stdout)["checkpoints"]
    assert [row["ordinal"] for row in rows] == [5, 4, 3, 2, 1, 0]
    assert all(row["low"] <= row["correct"] / row["items"] <= row["high"] for row in rows)
    assert "live" in ratchet("show", "leaderboard").stdout


def test_leaderboard_ranks_the_best_and_by_the_suite_in_force_alone(ledger: Ledger) -> None:
    best = json.loads(ratchet("show", "leaderboard", "--json", "-n", "2").stdout)["checkpoints"]
    assert [row["ordinal"] for row in best] == [5, 4]
    with ledger.write() as tx:
        tx.session.query(SuiteRow).where(SuiteRow.pool == "eval").one().retired_at = tx.now
    assert json.loads(ratchet("show", "leaderboard", "--json").stdout) == {"checkpoints": []}


def test_why_gives_every_verdict_with_its_numbers(ledger: Ledger) -> None:
    shown = ratchet("why", "2").stdout
    assert "refused" in shown.splitlines()[0]
    assert "Live is #3" in shown
    assert "no proof of gain: won 6, lost 4 of 900" in shown
    assert "challenge 1 of #1" in shown
    assert "ran out of memory" in shown
    facts = json.loads(ratchet("why", "2", "--json").stdout)
    assert [v["who"] for v in facts["verdicts"]][-1] == "deployment"


@pytest.mark.parametrize("name", ["3", "#3", "champion", "03cc"])
def test_a_checkpoint_has_several_names(ledger: Ledger, name: str) -> None:
    assert json.loads(ratchet("why", name, "--json").stdout)["checkpoint_id"] == checkpoint_id(3)


@pytest.mark.parametrize("name", ["99", "zzzz", "", "%%%%"])
def test_an_unknown_checkpoint_is_refused_with_the_way_out(ledger: Ledger, name: str) -> None:
    assert "`ratchet show leaderboard`" in ratchet("why", name, code=2).stderr


def test_events_are_listed_and_filtered_by_name_and_by_cause(ledger: Ledger) -> None:
    assert "queue.low" in ratchet("events").stdout
    only = ratchet("events", "--name", "checkpoint.deployed", "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in only] == ["checkpoint.deployed"] * 2
    event = json.loads(only[0])
    caused = ratchet("events", "--cause", event["cause"][:12], "--json").stdout.splitlines()
    assert event["id"] in [json.loads(line)["id"] for line in caused]
    assert {json.loads(line)["cause"] for line in caused} == {event["cause"]}
    assert ratchet("events", "--cause", "nonsense").stdout == ""


def test_an_unknown_event_name_is_refused_with_the_catalogue(ledger: Ledger) -> None:
    assert "checkpoint.saved" in ratchet("events", "--name", "nonsense", code=2).stderr


def test_stop_and_reset_without_a_run(home: Path) -> None:
    assert "nothing is running" in ratchet("stop").stdout
    assert "nothing at" in ratchet("reset", "--yes").stdout
    home.mkdir()
    assert "does not look like a home" in ratchet("reset", "--yes", code=2).stderr
    (home / "run.lock").touch()
    ratchet("reset", "--yes")
    assert not home.exists()


def test_logs_are_readable(home: Path) -> None:
    assert "none yet" in ratchet("logs", code=2).stderr
    (home / "logs").mkdir(parents=True)
    line = {"at": 1.0, "level": "warning", "message": "late", "subject": "checkpoint 7", "traceback": "Trace…"}
    (home / "logs" / "testing@box+0.log").write_text(json.dumps(line) + "\nplain words\ncut off")
    (home / "logs" / "training.child.log").write_text("loading\n")
    shown = ratchet("logs", "testing").stdout
    assert "warning late  [subject=checkpoint 7]" in shown
    assert "plain words" in shown
    assert "cut off" not in shown
    assert "loading" not in shown
    assert "there are: testing, training" in ratchet("logs", "mining", code=2).stderr


def test_queue_lists_and_skips(ledger: Ledger) -> None:
    values = json.loads(ratchet("queue", "list", "--json").stdout)
    assert [b["state"] for b in values["batches"]] == ["training", "queued", "submitted"]
    assert "depth 20,800 examples" in ratchet("queue", "list").stdout
    ratchet("queue", "skip", "07")
    assert "only a waiting or running batch" in ratchet("queue", "skip", "07", code=2).stderr
    with ledger.read() as session:
        assert session.get_one(BatchRow, "07" + "b" * 30).state == "skipped"


def test_queue_add_submits_a_file_and_names_bad_rows(empty_ledger: Ledger, tmp_path: Path) -> None:
    """As `data add`, whose other name it is."""
    rows = [json.dumps({"question": f"Where is {n}?", "answer": f"in room {n}"}) for n in range(20)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join([rows[0], "{broken", *rows[1:], '{"odd": 1}']) + "\n")
    result = ratchet("queue", "add", str(file), "--priority", "high", "--json")
    assert "mine.jsonl:2:" in result.stderr
    assert "mine.jsonl:22:" in result.stderr
    said = json.loads(result.stdout)
    assert (said["task"], said["rows"], said["unreadable"]) == ("mine", 20, 2)
    with empty_ledger.read() as session:
        batch = session.get_one(BatchRow, said["batch_ids"][0])
        assert (batch.state, batch.origin, batch.task, batch.priority) == ("submitted", "user", "mine", 0)
        assert batch.submitted_examples == 22 - sum(said["held_out"].values())
        names = session.scalars(select(OutboxRow.name).where(OutboxRow.body.contains(batch.id))).all()
    assert names == ["batch.submitted"]
    assert "submitted before" in ratchet("queue", "add", str(file), code=2).stderr


def test_rows_of_built_in_families_are_queued_without_a_task(empty_ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "sums.jsonl"
    rows = [{"question": f"{n}+1=", "answer": f"{n}+1={n + 1}", "family": "chain_sum"} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = json.loads(ratchet("data", "add", str(file), "--json").stdout)
    assert said["queued_rows"] == 3
    with empty_ledger.read() as session:
        assert session.get_one(BatchRow, said["batch_ids"][0]).task is None
    assert "no task yet" in ratchet("data", "list").stdout


def test_a_dry_run_shows_the_split_and_adds_nothing(empty_ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"question": f"Where is {n}?", "answer": f"in {n}"}) + "\n" for n in range(20)))
    assert "held out" in ratchet("data", "add", str(file), "--dry-run").stdout
    with empty_ledger.read() as session:
        assert session.query(BatchRow).filter(BatchRow.task.is_not(None)).count() == 0


def test_a_file_that_joins_a_task_by_its_name_alone_is_told_with_the_way_out(
    empty_ledger: Ledger, tmp_path: Path
) -> None:
    german, french = (tmp_path / name / "train.jsonl" for name in ("german", "french"))
    for file, first in ((german, 0), (french, 500)):
        file.parent.mkdir()
        rows = ({"question": f"Where is {n}?", "answer": f"in {n}"} for n in range(first, first + 20))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "joins" not in ratchet("data", "add", str(german)).stdout
    said = ratchet("data", "add", str(french), "--dry-run").stdout
    assert str(german) in said
    assert "`--task NAME`" in said
    assert "joins" not in ratchet("data", "add", str(french), "--task", "train", "--dry-run").stdout
    ratchet("data", "add", str(french))
    with german.open("a") as more:
        more.write(json.dumps({"question": "Where is 900?", "answer": "in 900"}) + "\n")
    assert "joins" not in ratchet("data", "add", str(german)).stdout


def test_how_a_task_is_judged_can_be_changed(empty_ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"question": f"Where is {n}?", "answer": f"in {n}"}) + "\n" for n in range(20)))
    ratchet("data", "add", str(file))
    assert "is judged by loss" in ratchet("data", "set", "mine", "--metric", "loss").stdout
    assert json.loads(ratchet("data", "list", "--json").stdout)[0]["metric"] == "loss"
    assert "there is no task 'other'; tasks: mine" in ratchet("data", "set", "other", "--metric", "loss", code=2).stderr
    assert "--metric speed is not one of" in ratchet("data", "set", "mine", "--metric", "speed", code=2).stderr


def test_a_task_that_is_judged_in_another_way_is_measured_anew(empty_ledger: Ledger, tmp_path: Path) -> None:
    def state() -> tuple[str | None, int, str, str]:
        with empty_ledger.read() as session:
            task = session.get_one(TaskRow, "mine")
            return task.best_id, task.stale, task.state, task.reason

    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"question": f"Where is {n}?", "answer": f"in {n}"}) + "\n" for n in range(20)))
    ratchet("data", "add", str(file), "--metric", "accuracy")
    for told, is_anew in ((("--unprotected",), False), (("--metric", "accuracy"), False), (("--metric", "loss"), True)):
        with empty_ledger.write() as tx:
            task = tx.session.get_one(TaskRow, "mine")
            task.best_id, task.stale, task.state, task.reason = "c0003", 6, "used_up", "no better"
        ratchet("data", "set", "mine", *told)
        assert state() == ((None, 0, "active", "") if is_anew else ("c0003", 6, "used_up", "no better")), told


def test_queue_add_refuses_a_file_without_a_readable_row(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{broken\n")
    assert "bad.jsonl:1: not JSON" in ratchet("queue", "add", str(tmp_path / "bad.jsonl"), code=2).stderr


def test_migrate_makes_the_ledger(home: Path) -> None:
    assert "the ledger has schema" in ratchet("migrate").stdout
    assert "dead letters" in ratchet("dead", "list").stdout


def test_migrate_reports_an_unreachable_ledger(home: Path) -> None:
    away = "ledger.url=postgresql+psycopg://ratchet@127.0.0.1:9/ratchet"
    assert "is away" in ratchet("--set", away, "migrate", code=2).stderr


def test_prepare_waits_for_stores_but_not_with_a_setting_that_is_wrong(home: Path) -> None:
    assert "run `ratchet migrate`" in ratchet("prepare", code=2).stderr
    ratchet("migrate")
    assert "/no/model" in ratchet("--set", "model.path=/no/model", "prepare", "--wait", "600", code=2).stderr


def test_ask_without_a_server_names_the_way_to_start_one(home: Path) -> None:
    result = ratchet("--set", "serving.port=1", "ask", "1+1=", code=2)
    assert "`ratchet run` serves one" in result.stderr


def test_refills_show_their_source_count_and_cost(ledger: Ledger) -> None:
    with ledger.write() as tx:
        numbers = {
            "generator": "teacher",
            "assignment": {"arm": "adaptive", "probability": 0.5},
            "made": {"chain_sum/1": 1_500, "chain_sum/2": 500},
            "refused": {"wrong_answer": 12},
            "cost": {"requests": 2_012},
            "took_s": 10.0,
        }
        refill = ("generation", "refill", "7", "submitted", "2000 examples")
        names = ("system", "subject_kind", "subject_id", "outcome", "reason")
        row = dict(zip(names, refill, strict=True))
        tx.session.add(VerdictRow(**row, numbers=numbers, cause=None, worker="w", created_at=tx.now, took_s=10.0))
    (line,) = [line for line in ratchet("show", "generation").stdout.splitlines() if "teacher" in line]
    assert all(word in line for word in ("adaptive", "2,000", "200", "12 wrong_answer", "2,012 requests"))
    assert json.loads(ratchet("show", "generation", "--json").stdout)["refills"][0]["refill"] == 7


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(texts=st.lists(st.text(st.sampled_from("a\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e")), min_size=1, max_size=4))
def test_a_line_of_a_log_is_shown_whole(home: Path, texts: list[str]) -> None:
    (home / "logs").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"at": 0, "level": "INFO", "message": text}, ensure_ascii=False) for text in texts]
    (home / "logs" / "testing@box+0.log").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    shown = ratchet("logs", "testing", "--json").stdout.split("\n")[:-1]
    assert [json.loads(line)["message"] for line in shown] == texts
