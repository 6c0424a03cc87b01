"""Testing and mining answered by a real vLLM: the records are those of Ratchet's own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from miner.model_children import MiningResult, MiningSpec, ModelSpec, mine_checkpoint
from ratchet.data.example import Example
from ratchet.evaluation.answer_suites import TestingResult, run_suites
from ratchet.evaluation.record import ItemRecord, records_from_lines
from ratchet.evaluation.suite import HoldOut
from ratchet.inference.generator import Decoding
from ratchet.settings.serving import InferenceSettings

from tests.support.examples import write_examples
from tests.support.server_processes import Checkpoint

from .conftest import COMMAND

IN_VLLM = {"engine": "vllm", "vllm_command": COMMAND, "dtype": "fp32", "timeout_s": 600.0}
EPSILON = 1e-3
"""Largest difference of a log-probability, in fp32, from our own model."""


@pytest.fixture(autouse=True)
def _small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def items(tmp_path: Path) -> Path:
    rows = [Example.ask(f"{number}+{number}=", str(2 * number)) for number in range(24)]
    return write_examples(tmp_path / "rows.jsonl", rows)


def judged(tmp_path: Path, served: Checkpoint, name: str, inference: dict[str, Any]) -> tuple[str, list[ItemRecord]]:
    suite = {"name": "eval", "version": "1", "grader": "exact", "path": str(items(tmp_path)), "score_gold": True}
    spec = {
        "checkpoint": str(served.path),
        "weights": served.weights,
        "suites": [suite],
        "work_folder": str(tmp_path / name),
        "decoding": {"max_new_tokens": 12},
        "inference": inference,
    }
    result = TestingResult.model_validate(run_suites(spec, lambda _message: None))
    assert result.broken is None
    eval_suite = result.suites["eval"]
    return eval_suite.key.engine, list(records_from_lines(eval_suite.items.read_text().split("\n")))


@pytest.mark.parametrize("kind", ["whole", "adapted"])
def test_a_checkpoint_is_judged_as_by_our_own_engine(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    served: Checkpoint = request.getfixturevalue(kind)
    engine, there = judged(tmp_path, served, "vllm", IN_VLLM)
    _, here = judged(tmp_path, served, "own", {"dtype": "fp32"})
    assert engine.startswith("vllm-0.")
    assert [item.answer for item in there] == [item.answer for item in here]
    for mine, theirs in zip(here, there, strict=True):
        assert theirs.token_logprobs == pytest.approx(mine.token_logprobs, abs=EPSILON)
        assert theirs.gold_nll == pytest.approx(mine.gold_nll, abs=EPSILON)
        assert (theirs.correct, theirs.finish_reason) == (mine.correct, mine.finish_reason)


def test_a_checkpoint_is_mined_as_by_our_own_engine(whole: Checkpoint, tmp_path: Path) -> None:
    def mined(settings: InferenceSettings) -> MiningResult:
        model = ModelSpec(
            checkpoint=whole.path,
            weights=whole.weights,
            scratch=tmp_path,
            decoding=Decoding(max_new_tokens=12),
            inference=settings,
        )
        order = MiningSpec(model=model, cells=(("chain_sum", 2),), held_out=HoldOut(seed=1, share=0.2), budget=40)
        return MiningResult.model_validate(mine_checkpoint(order.model_dump(mode="json"), lambda _message: None))

    there, here = mined(InferenceSettings.model_validate(IN_VLLM)), mined(InferenceSettings(dtype="fp32"))
    assert here.found
    assert [item.key for item in there.found] == [item.key for item in here.found]
    assert there.yields == here.yields
