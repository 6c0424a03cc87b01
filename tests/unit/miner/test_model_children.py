"""Mining's and correction's model children, on a wide random model: it answers, and never right."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from miner.mined_items import ROWS
from miner.model_children import (
    MiningResult,
    MiningSpec,
    ModelSpec,
    SamplingResult,
    SamplingSpec,
    best,
    mine_checkpoint,
    sample_answers,
)
from miner.search import ROUND_ITEMS
from ratchet.data.example import Example
from ratchet.evaluation.suite import HoldOut
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_folder import weights_digest
from ratchet.settings import Settings
from ratchet.tasks.graders import item_key

from tests.support.examples import made
from tests.support.tiny_model import build_tiny_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    scratch = tmp_path_factory.mktemp("checkpoint")
    folder = build_tiny_model(scratch / "model", seed=3, initializer_range=0.3)
    decoding = Decoding(max_new_tokens=8)
    return ModelSpec(checkpoint=folder, weights=weights_digest(folder), scratch=scratch, decoding=decoding)


def mined(model: ModelSpec, **fields: Any) -> MiningResult:
    spec = MiningSpec(model=model, held_out=HoldOut(seed=1, share=0.2), **fields)
    seen: list[dict[str, Any]] = []
    result = mine_checkpoint(spec.model_dump(mode="json"), seen.append)
    assert seen
    return MiningResult.model_validate(result)


def test_fresh_weak_items_are_found_within_the_budget_and_off_the_pools(model: ModelSpec) -> None:
    result = mined(model, cells=(("chain_sum", 2),), budget=ROUND_ITEMS + 12)
    assert sum(asked for _, asked in result.yields.values()) == ROUND_ITEMS + 12
    assert len(result.found) == ROUND_ITEMS + 12
    assert not [item.key for item in result.found if item.key in HoldOut(seed=1, share=0.2)]
    assert {item.example.metadata["source"] for item in result.found} == {"mining"}
    assert all(item.error for item in result.found)


def test_wrong_answers_are_weighed_by_the_loss_of_the_right_answer(model: ModelSpec) -> None:
    found = mined(model, cells=(("chain_sum", 2),), budget=10).found
    generator = LocalGenerator.load(model.checkpoint)
    scores = generator.score([item.example.prompt for item in found], [str(item.example.answer) for item in found])
    likely = [math.exp(sum(score) / len(score)) for score in scores]
    assert [item.weakness for item in found] == pytest.approx([2.0 - each for each in likely], rel=1e-4)
    assert len({round(each, 6) for each in likely}) > 1


def test_the_same_order_gives_the_same_result(model: ModelSpec) -> None:
    first, second = (mined(model, cells=(("reverse", 1),), budget=20, seed=7) for _ in range(2))
    assert first == second


def test_the_previous_set_and_its_controls_are_asked(model: ModelSpec) -> None:
    items = made(count=3)
    result = mined(model, retest=tuple(items[:2]), control=(items[2],))
    assert (result.retest, result.control, result.found) == ((False, False), (False,), ())


def test_training_rows_are_graded_or_where_nothing_grades_them_ranked_by_their_loss(model: ModelSpec) -> None:
    graded = Example.ask("Where is Mary?", "garden", family="babi", level=1, grader="normalized")
    free = [
        Example.ask("Tell me.", f"The {word} is here.", family="notes", level=1, metric="loss") for word in "abcdefgh"
    ]
    wrong, *hard = mined(model, rows=(graded, *free), budget=9).weak_rows
    assert (wrong.cell, wrong.category, wrong.found_by) == (("babi", 1), "wrong", ROWS)
    generator = LocalGenerator.load(model.checkpoint)
    scores = generator.score([row.prompt for row in free], [str(row.answer) for row in free])
    losses = {
        item_key(row) + str(row.answer): -sum(score) / len(score) for row, score in zip(free, scores, strict=True)
    }
    worst = sorted(losses, key=lambda key: -losses[key])[:2]
    assert [item.key + str(item.example.answer) for item in hard] == worst
    assert {item.category for item in hard} == {"hard"}


def test_without_a_right_sample_nothing_is_kept(model: ModelSpec) -> None:
    hot = model.model_copy(update={"decoding": Decoding(max_new_tokens=8, temperature=1.0)})
    spec = SamplingSpec(model=hot, items=tuple(made("reverse", 1, 3)), samples=4)
    result = SamplingResult.model_validate(sample_answers(spec.model_dump(mode="json"), lambda _: None))
    assert result == SamplingResult(kept=(None, None, None), asked=12, verified=0, right=((), (), ()))


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        ([None, None], None),
        ([], None),
        (["b", None, "b", "a"], "b"),
        (["long one", "short"], "short"),
        (["", None], None),
    ],
)
def test_the_commonest_right_answer_is_kept(answers: list[str | None], kept: str | None) -> None:
    assert best(answers) == kept


def test_items_mined_before_are_not_asked_again(model: ModelSpec) -> None:
    known = frozenset(item_key(item) for item in made("chain_sum", 1, 500))
    assert mined(model, cells=(("chain_sum", 1),), budget=10, known=known, retest=tuple(made())).found == ()


def test_the_model_is_asked_with_the_configured_decoding() -> None:
    settings = Settings(suites={"max_new_tokens": 7}, profile={"name": "regime3"}, inference={"batch_size": 3})
    told = ModelSpec.configured(settings, Path("checkpoint"), "weights", 0.0, Path("scratch"))
    assert (told.decoding.max_new_tokens, told.profile, told.inference.batch_size) == (7, "regime3", 3)
