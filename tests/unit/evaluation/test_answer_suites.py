"""Testing's child: one load, every item recorded, repeatable, resumed after a kill, broken checkpoints reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ratchet.data.example import Example
from ratchet.errors import DataError, EmptyEvaluation
from ratchet.evaluation.answer_suites import OutputCensus, run_suites
from ratchet.evaluation.record import ItemRecord
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_folder import weights_digest

from tests.support.examples import write_examples
from tests.support.records import item_record

from .asking import Spec, records, run, sums


def test_every_item_of_every_suite_is_recorded_under_its_key(spec: Spec, checkpoint: Path) -> None:
    asked = spec(weights=weights_digest(checkpoint))
    seen: list[dict[str, Any]] = []
    result = run(asked, seen.append)
    assert result.broken is None
    assert result.weights == weights_digest(checkpoint)
    assert {name: suite.n for name, suite in result.suites.items()} == {"eval": 40, "probe": 20}
    suite = result.suites["eval"]
    assert suite.key.model_dump(include={"weights", "suite", "grader", "dtype", "gpu_class"}) == {
        "weights": result.weights,
        "suite": "eval-v1",
        "grader": "chain_sum@1",
        "dtype": "fp32",
        "gpu_class": "cpu",
    }
    items = [ItemRecord.model_validate(record | {"latency_s": 0.0}) for record in records(suite)]
    assert [item.item_id for item in items] == [example.id for example in sums(40, 2)]
    assert {(item.family, item.level) for item in items} == {("chain_sum", 2)}
    assert all(item.key.startswith("chain_sum:") for item in items)
    assert all(len(item.token_ids) == len(item.token_logprobs) > 0 for item in items)
    assert suite.correct == sum(item.correct is True for item in items)
    assert suite.tokens == sum(len(item.token_ids) for item in items)
    assert suite.tokens_per_s > 0
    assert [at["done"] for at in seen if at.get("suite") == "eval"] == [0, 16, 32, 40]


def test_the_noise_floor_is_measured_where_it_is_wanted_and_not_known(spec: Spec) -> None:
    asked = spec()
    asked["suites"][0]["noise_known"] = [("another engine", "fp32", "cpu")]
    measured = run(asked).suites
    noise = measured["eval"].noise
    assert noise is not None
    assert (noise.items, noise.graded, noise.flips, noise.changed) == (40, 40, 0, 0)  # bit for bit, on a CPU in fp32
    assert measured["probe"].noise is None
    known = spec("known")
    known["suites"][0]["noise_known"] = [noise.conditions]
    assert run(known).suites["eval"].noise is None


def test_an_answer_at_the_limit_is_truncated_and_the_others_are_read(spec: Spec) -> None:
    items = records(run(spec()).suites["eval"])
    for item in items:
        readable = "missing" if item["extracted"] is None else "ok"
        assert item["extraction"] == ("truncated" if item["finish_reason"] == "length" else readable)
    assert {"truncated"} < {item["extraction"] for item in items}


def test_a_right_answer_is_graded_right(spec: Spec, checkpoint: Path, tmp_path: Path) -> None:
    said = records(run(spec()).suites["eval"])[0]["answer"]
    item = Example.ask(sums(1, 2)[0].question, said, grader="exact", gold=said.strip())
    suite = {
        "name": "own",
        "version": "v1",
        "grader": "exact",
        "path": str(write_examples(tmp_path / "o.jsonl", [item])),
    }
    result = run(spec("other", suites=[suite])).suites["own"]
    assert (result.n, result.correct) == (1, 1)
    assert records(result)[0]["family"] == "text"


def test_an_item_that_the_template_refuses_counts_as_not_answered_and_the_others_are_asked(
    spec: Spec, checkpoint: Path, tmp_path: Path
) -> None:
    strict = Path(shutil.copytree(checkpoint, tmp_path / "strict"))
    refusal = "{% if messages | length > 2 %}{{ raise_exception('one question only') }}{% endif %}"
    (strict / "chat_template.jinja").write_text(refusal + (strict / "chat_template.jinja").read_text())
    first, second, *_ = sums(2, 2)
    talk = Example(messages=(*first.messages, *second.messages), metadata={"grader": "exact"})
    items = [first, talk, second]
    suite = {"name": "own", "version": "v1", "grader": "g", "path": str(write_examples(tmp_path / "o.jsonl", items))}
    notes: list[str] = []
    told = run(
        spec("other", checkpoint=str(strict), suites=[suite]), lambda message: notes.append(message.get("note", ""))
    )
    asked = {"name": "own", "version": "v1", "grader": "g"}
    alone = {**asked, "path": str(write_examples(tmp_path / "p.jsonl", [first, second]))}
    usual, refused, last = records(told.suites["own"])
    assert [usual, last] == records(run(spec("alone", suites=[alone])).suites["own"])
    assert (refused["item_id"], refused["answer"], refused["correct"]) == (talk.id, "", False)
    assert any(f"1 items cannot be asked, first {talk.id}" in note and "one question only" in note for note in notes)


def test_an_item_that_fits_in_no_context_counts_as_not_answered_and_the_others_are_asked(
    spec: Spec, tmp_path: Path
) -> None:
    long = Example.ask("2" * 3_000, "3", grader="exact")
    items = [long, *sums(2, 2)]
    path = str(write_examples(tmp_path / "o.jsonl", items))
    suite = {"name": "own", "version": "v1", "grader": "g", "path": path, "score_gold": True}
    notes: list[str] = []
    told = run(spec("other", suites=[suite]), lambda message: notes.append(message.get("note", "")))
    refused, *others = records(told.suites["own"])
    alone = {**suite, "path": str(write_examples(tmp_path / "p.jsonl", items[1:]))}
    assert others == records(run(spec("alone", suites=[alone])).suites["own"])
    assert (refused["item_id"], refused["answer"], refused["gold_nll"]) == (long.id, "", None)
    assert any("1 items cannot be asked" in note and "leaves no room in a context of 1024" in note for note in notes)


def test_the_same_checkpoint_twice_gives_the_same_records(spec: Spec) -> None:
    one, other = run(spec("one")), run(spec("other"))
    for name in ("eval", "probe"):
        assert records(one.suites[name]) == records(other.suites[name])
        assert one.suites[name].key == other.suites[name].key


def test_the_loss_of_the_right_answers_is_measured_where_it_is_asked_for(spec: Spec, checkpoint: Path) -> None:
    asked = spec()
    asked["suites"][0]["score_gold"] = True
    result = run(asked)
    losses = [item["gold_nll"] for item in records(result.suites["eval"])]
    assert {item["gold_nll"] for item in records(result.suites["probe"])} == {None}
    generator = LocalGenerator.load(checkpoint)
    examples = sums(40, 2)
    scores = generator.score([example.prompt for example in examples], [str(example.answer) for example in examples])
    assert losses == pytest.approx([-sum(score) / len(score) for score in scores], rel=1e-4)


def test_a_right_answer_that_fits_in_no_context_is_left_out(spec: Spec, tmp_path: Path) -> None:
    items = [Example.ask("1+1=", "2" * 3_000, grader="exact"), Example.ask("1+2=", "3", grader="exact")]
    path = str(write_examples(tmp_path / "long.jsonl", items))
    suite = {"name": "long", "version": "v1", "grader": "exact", "path": path, "score_gold": True}
    long, short = records(run(spec("long", suites=[suite])).suites["long"])
    assert long["gold_nll"] is None
    assert short["gold_nll"] > 0


def test_a_suite_without_items_is_an_error(spec: Spec, tmp_path: Path) -> None:
    asked = spec()
    (tmp_path / "probe.jsonl").write_text("\n")
    with pytest.raises(EmptyEvaluation, match=r"probe\.jsonl holds no item"):
        run(asked)


@pytest.mark.parametrize(("line", "says"), [("{}", "not an example"), (None, "the same item")])
def test_a_wrong_line_of_a_suite_is_named(spec: Spec, tmp_path: Path, line: str | None, says: str) -> None:
    asked = spec()
    suite = tmp_path / "eval.jsonl"
    lines = suite.read_text().splitlines()
    suite.write_text("\n".join([*lines[:3], lines[0] if line is None else line, *lines[3:]]))
    with pytest.raises(DataError, match=rf"eval\.jsonl:4: {says}"):
        run(asked)


def test_an_unknown_field_of_the_spec_is_refused(spec: Spec) -> None:
    with pytest.raises(ValidationError, match="temprature"):
        run(spec(temprature=1.0))


class Killed(Exception):
    """Simulates a SIGKILL between two batches."""


def kill_at(suite: str, done: int) -> Callable[[dict[str, Any]], None]:
    def progress(at: dict[str, Any]) -> None:
        if (at.get("suite"), at.get("done")) == (suite, done):
            raise Killed

    return progress


def test_a_killed_run_resumes_with_the_same_records(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    for suite, done in (("eval", 16), ("eval", 40), ("probe", 16)):
        with pytest.raises(Killed):
            run_suites(spec(), kill_at(suite, done))
    seen: list[dict[str, Any]] = []
    resumed = run(spec(), seen.append)
    assert [at["done"] for at in seen if "suite" in at] == [40, 16, 20]
    for name in ("eval", "probe"):
        assert records(resumed.suites[name]) == records(whole.suites[name])
        assert resumed.suites[name].tokens == whole.suites[name].tokens


def test_a_run_resumes_from_the_longest_record_of_killed_runs(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    for work, done in (("first", 32), ("second", 16)):
        with pytest.raises(Killed):
            run_suites(spec(work), kill_at("eval", done))
    seen: list[dict[str, Any]] = []
    earlier = [str(tmp_path / name) for name in ("first", "second", "never")]
    third = run(spec("third", earlier=earlier), seen.append)
    assert [at["done"] for at in seen if at.get("suite") == "eval"] == [32, 40]
    assert records(third.suites["eval"]) == records(whole.suites["eval"])


def test_a_torn_line_and_all_after_it_are_answered_again(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    with pytest.raises(Killed):
        run_suites(spec(), kill_at("eval", 32))
    part = tmp_path / "work" / "eval.part.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:20]) + lines[20][:50])
    seen: list[dict[str, Any]] = []
    assert records(run(spec(), seen.append).suites["eval"]) == records(whole.suites["eval"])
    assert next(at["done"] for at in seen if at.get("suite") == "eval") == 19


def test_records_made_under_other_conditions_are_not_resumed(spec: Spec) -> None:
    with pytest.raises(Killed):
        run_suites(spec(), kill_at("eval", 32))
    seen: list[dict[str, Any]] = []
    run(spec(decoding={"max_new_tokens": 4}), seen.append)
    assert next(at["done"] for at in seen if "suite" in at) == 0


def test_nearly_all_items_must_share_the_fault() -> None:
    census = OutputCensus()
    assert census.verdict() is None
    census.add([item_record(answer="")] * 97 + [item_record()] * 3)
    assert census.verdict() is None
    census.add([item_record(answer="")] * 100)
    assert census.verdict() == "empty answers on 197 of 200 items"


def test_items_of_other_metrics_are_answered_and_scored_but_not_graded(spec: Spec, tmp_path: Path) -> None:
    """The loss of a reference answer is measured in every pool, however long the answer is."""
    note = "12 + 30 = 42; " * 8
    items = [
        Example.ask("Describe 1.", note, family="notes", metric="loss"),
        Example.ask("Describe 2.", note, family="letters", metric="judge"),
        sums(1, 2)[0],
    ]
    suite = {
        "name": "confirm",
        "version": "v1",
        "grader": "g",
        "path": str(write_examples(tmp_path / "c.jsonl", items)),
    }
    told = run(spec("other", suites=[suite])).suites["confirm"]
    loss, judged, graded = (ItemRecord.model_validate(record | {"latency_s": 0.0}) for record in records(told))
    assert (loss.metric, loss.correct, loss.family) == ("loss", None, "notes")
    assert loss.gold_nll is not None
    assert loss.gold_nll > 0
    assert loss.gold_tokens is not None
    assert loss.gold_tokens > 24
    assert loss.token_ids
    assert (judged.metric, judged.correct, judged.score, judged.extracted) == ("judge", None, None, judged.answer)
    assert (graded.metric, graded.correct, graded.error is None) == ("accuracy", False, False)


def test_an_unknown_metric_is_refused_by_name(spec: Spec, tmp_path: Path) -> None:
    item = Example.ask("Describe 1.", "One.", metric="beauty")
    suite = {"name": "own", "version": "v1", "grader": "g", "path": str(write_examples(tmp_path / "o.jsonl", [item]))}
    with pytest.raises(DataError, match="metric 'beauty' is none of accuracy, loss, judge"):
        run(spec("other", suites=[suite]))
