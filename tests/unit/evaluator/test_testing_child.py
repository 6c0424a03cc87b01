"""Testing's child: one load, every item recorded, the same twice, resumed after a kill, broken checkpoints told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from evaluator.testing_child import run_suites
from evaluator.testing_spec import SuiteResult, TestingResult
from pydantic import ValidationError
from ratchet.data.example import Example
from ratchet.errors import DataError, EmptyEvaluation
from ratchet.evaluation.record import ItemRecord, from_lines
from ratchet.inference.digest import weights_digest
from ratchet.inference.local import LocalGenerator
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.testing.examples import write_examples
from ratchet.testing.tiny_model import build_tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

BATCH = 16

Spec = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide random weights: answers are wrong, but each is another."""
    return build_tiny_model(tmp_path_factory.mktemp("checkpoint") / "model", seed=3, initializer_range=0.3)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model as it starts: it never ends, and says nothing."""
    return build_tiny_model(tmp_path_factory.mktemp("untrained") / "model")


def sums(count: int, level: int) -> list[Example]:
    family = registry.get("chain_sum")
    examples = {(e := to_example(family.generate(level, seed), "test")).id: e for seed in range(3 * count)}
    return list(examples.values())[:count]


@pytest.fixture
def spec(checkpoint: Path, tmp_path: Path) -> Spec:
    """Two suites of 40 and 20 items, in a work folder of their own."""

    def make(work: str = "work", **fields: Any) -> dict[str, Any]:
        suites = [
            {
                "name": name,
                "version": f"{name}-v1",
                "grader": "chain_sum@1",
                "path": str(write_examples(tmp_path / f"{name}.jsonl", sums(count, level))),
            }
            for name, count, level in (("eval", 40, 2), ("probe", 20, 3))
        ]
        return {
            "checkpoint": str(checkpoint),
            "suites": suites,
            "work_folder": str(tmp_path / work),
            "decoding": {"max_new_tokens": 24},
            "inference": {"batch_size": BATCH},
            **fields,
        }

    return make


def run(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None] = lambda _: None) -> TestingResult:
    return TestingResult.model_validate(run_suites(spec, progress))


def records(suite: SuiteResult) -> list[dict[str, Any]]:
    """Everything but the latency."""
    items = from_lines(suite.items.read_text().split("\n"))
    return [item.model_dump(exclude={"latency_s"}) for item in items]


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
    assert suite.correct == sum(item.correct for item in items)
    assert suite.tokens == sum(len(item.token_ids) for item in items)
    assert suite.tokens_per_s > 0
    assert [at["done"] for at in seen if at["suite"] == "eval"] == [0, 16, 32, 40]


def test_what_ran_into_the_limit_is_truncated_and_the_rest_is_read(spec: Spec) -> None:
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


class Killed(Exception):
    """Stands for a SIGKILL between two batches."""


def kill_at(suite: str, done: int) -> Callable[[dict[str, Any]], None]:
    def progress(at: dict[str, Any]) -> None:
        if (at["suite"], at["done"]) == (suite, done):
            raise Killed

    return progress


def test_a_killed_run_goes_on_where_it_was_with_the_same_records(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    for suite, done in (("eval", 16), ("eval", 40), ("probe", 16)):
        with pytest.raises(Killed):
            run_suites(spec(), kill_at(suite, done))
    seen: list[dict[str, Any]] = []
    resumed = run(spec(), seen.append)
    assert [at["done"] for at in seen] == [40, 16, 20]
    for name in ("eval", "probe"):
        assert records(resumed.suites[name]) == records(whole.suites[name])
        assert resumed.suites[name].tokens == whole.suites[name].tokens


def test_another_run_goes_on_with_the_longest_of_those_that_were_killed(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    for work, done in (("first", 32), ("second", 16)):
        with pytest.raises(Killed):
            run_suites(spec(work), kill_at("eval", done))
    seen: list[dict[str, Any]] = []
    earlier = [str(tmp_path / name) for name in ("first", "second", "never")]
    third = run(spec("third", earlier=earlier), seen.append)
    assert [at["done"] for at in seen if at["suite"] == "eval"] == [32, 40]
    assert records(third.suites["eval"]) == records(whole.suites["eval"])


def test_a_torn_line_and_what_follows_are_answered_again(spec: Spec, tmp_path: Path) -> None:
    whole = run(spec("whole"))
    with pytest.raises(Killed):
        run_suites(spec(), kill_at("eval", 32))
    part = tmp_path / "work" / "eval.part.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:20]) + lines[20][:50])
    seen: list[dict[str, Any]] = []
    assert records(run(spec(), seen.append).suites["eval"]) == records(whole.suites["eval"])
    assert next(at["done"] for at in seen if at["suite"] == "eval") == 19


def test_records_made_under_other_conditions_are_not_gone_on_with(spec: Spec) -> None:
    with pytest.raises(Killed):
        run_suites(spec(), kill_at("eval", 32))
    seen: list[dict[str, Any]] = []
    run(spec(decoding={"max_new_tokens": 4}), seen.append)
    assert seen[0]["done"] == 0


def damaged(checkpoint: Path, folder: Path, damage: Callable[[Path], object]) -> str:
    damage(shutil.copytree(checkpoint, folder))
    return str(folder)


def poison(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def overflow(folder: Path) -> None:
    """Finite weights whose products are not."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(torch.finfo(torch.float32).max)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shrink(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 337', '"vocab_size": 300'))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (poison, "NaN"),
        (overflow, "NaN"),
        (shrink, "wrong vocabulary"),
    ],
)
def test_a_broken_checkpoint_is_a_result(
    spec: Spec, checkpoint: Path, tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    result = run(spec(checkpoint=damaged(checkpoint, tmp_path / "damaged", damage)))
    assert says in (result.broken or "")
    assert result.suites == {}


def test_other_weights_than_announced_are_broken(spec: Spec) -> None:
    assert "expected" in (run(spec(weights="0" * 64)).broken or "")


def test_an_untrained_model_is_degenerate_but_not_broken(spec: Spec, untrained: Path) -> None:
    result = run(spec(checkpoint=str(untrained)))
    assert result.broken is None
    assert "on 60 of 60 items" in (result.degenerate or "")
    assert {name: suite.n for name, suite in result.suites.items()} == {"eval": 40, "probe": 20}


def test_degenerate_output_after_a_parent_that_answered_is_broken(spec: Spec, untrained: Path) -> None:
    result = run(spec(checkpoint=str(untrained), parent_degenerate=False))
    assert (result.broken or "").startswith("degenerate output: ")
    assert result.suites["eval"].n == 40


def always_says(checkpoint: Path, folder: Path, token: int) -> str:
    """A model whose every state points one way, along which the token lies twice as far as any other."""
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
    embedding = tensors["model.embed_tokens.weight"]
    embedding[:] = 1.0
    embedding[token] = 2.0
    tensors["model.norm.weight"].fill_(1.0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(("says", "fault"), [("<|im_end|>", "empty"), ("7", "repeating")])
def test_a_model_that_says_nothing_or_one_thing_is_broken(
    spec: Spec, checkpoint: Path, tmp_path: Path, says: str, fault: str
) -> None:
    token = AutoTokenizer.from_pretrained(checkpoint).convert_tokens_to_ids(says)
    result = run(spec(checkpoint=always_says(checkpoint, tmp_path / "says", token), parent_degenerate=False))
    assert "on 60 of 60 items" in (result.broken or "")
    assert fault in (result.broken or "") or (fault == "repeating" and "endless" in (result.broken or ""))
    answers = {item["answer"] for item in records(result.suites["eval"])}
    assert answers == ({""} if fault == "empty" else {"7" * 24})


def test_a_model_with_answers_is_not_degenerate(spec: Spec) -> None:
    assert run(spec(parent_degenerate=False)).degenerate is None


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
