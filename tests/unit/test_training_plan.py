"""The hyperparameters that are chosen for a model, its rows and a machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ratchet.data.example import Example, Message
from ratchet.inference.tiny import build_tiny_model
from ratchet.settings.training import HyperparamSettings, ModelSettings, MonitoringSettings
from ratchet.training_memory import ModelFacts, model_facts
from ratchet.training_plan import (
    UNKNOWN_MODEL,
    Machine,
    RowFacts,
    TrainingChoice,
    choose_training,
    cpu_computes_bf16,
    learning_rate,
    row_facts,
)

SMOLLM = ModelFacts(
    134_515_008,
    hidden=576,
    intermediate=1536,
    layers=30,
    vocabulary=49_152,
    attention=576,
    key_value=192,
    context=8192,
)
LAPTOP = Machine(16_000_000_000, bf16=True)
CARD = Machine(24_000_000_000, on_gpu=True)
ROWS = RowFacts((97,) * 85 + (127,), answer_share=0.03)


def steps(choice: TrainingChoice, rows: int) -> int:
    hyperparams = choice.hyperparams
    return rows * hyperparams.num_epochs // (hyperparams.batch_size * hyperparams.gradient_accumulation)


def test_a_pretrained_model_trains_adapters_unless_asked_otherwise() -> None:
    adapters, full = choose_training(SMOLLM, ROWS, LAPTOP), choose_training(SMOLLM, ROWS, LAPTOP, adapters=False)
    assert adapters.sections()["model"] == {"lora_rank": 16}
    assert full.sections()["model"] == {}
    assert full.hyperparams.learning_rate == pytest.approx(adapters.hyperparams.learning_rate / 10)
    assert adapters.fits
    assert adapters.memory.total < full.memory.total


def test_the_tiny_model_keeps_the_defaults(tmp_path: Path) -> None:
    facts = model_facts(build_tiny_model(tmp_path / "model"))
    assert (facts.parameters, facts.context, facts.dtype) == (120_320, 1024, "fp32")
    assert choose_training(facts, ROWS, LAPTOP).sections() == {"model": {}, "hyperparams": {}, "monitoring": {}}


@pytest.mark.parametrize(
    ("parameters", "adapters", "all_weights"),
    [(135e6, 5e-4, 5e-5), (600e6, 2.5e-4, 2.5e-5), (1e9, 2e-4, 2e-5), (8e9, 2e-4, 2e-5), (70e9, 1e-4, 1e-5)],
)
def test_learning_rates_fall_with_size(parameters: float, adapters: float, all_weights: float) -> None:
    assert learning_rate(int(parameters), adapters=True) == pytest.approx(adapters, rel=0.02)
    assert learning_rate(int(parameters), adapters=False) == pytest.approx(all_weights, rel=0.02)


def test_few_rows_still_give_steps_enough_to_learn() -> None:
    assert steps(choose_training(SMOLLM, ROWS, LAPTOP), 86) >= 40
    many = RowFacts((100,) * 20_000)
    assert choose_training(SMOLLM, many, LAPTOP).hyperparams.num_epochs == 1
    assert 8 <= steps(choose_training(SMOLLM, RowFacts((100,) * 20), LAPTOP), 20) <= 40


def test_the_maximum_length_follows_the_rows_and_the_context() -> None:
    assert choose_training(SMOLLM, ROWS, LAPTOP).hyperparams.max_length == 128
    long = choose_training(SMOLLM, RowFacts((100, 9_000)), CARD)
    assert (long.hyperparams.max_length, long.rows_too_long) == (8192, 1)
    assert choose_training(SMOLLM, None, LAPTOP).hyperparams.max_length == 1024


def test_where_memory_is_short_activations_are_recomputed_and_rows_get_shorter() -> None:
    rows = RowFacts((900,) * 50)
    roomy, tight, least = (
        choose_training(SMOLLM, rows, Machine(int(memory * 1e9), bf16=True)) for memory in (16, 3, 1.6)
    )
    assert not roomy.model.gradient_checkpointing
    assert tight.model.gradient_checkpointing
    assert (tight.rows_too_long, tight.fits) == (0, True)
    assert least.hyperparams.max_length < 900
    assert (least.rows_too_long, least.fits) == (50, True)
    assert not choose_training(UNKNOWN_MODEL, rows, Machine(1_000_000_000)).fits


def test_steps_have_the_same_rows_whatever_the_memory() -> None:
    sizes = {}
    for memory in (2, 16):
        found = choose_training(SMOLLM, RowFacts((200,) * 50), Machine(int(memory * 1e9))).hyperparams
        sizes[memory] = found.batch_size
        assert found.batch_size * found.gradient_accumulation == 8
    assert sizes[2] < sizes[16]


def test_bf16_is_chosen_where_the_cpu_has_it() -> None:
    assert choose_training(SMOLLM, ROWS, LAPTOP).hyperparams.fp_precision == "bf16"
    assert choose_training(SMOLLM, ROWS, Machine(16_000_000_000)).hyperparams.fp_precision == "auto"
    assert choose_training(SMOLLM, ROWS, CARD).hyperparams.fp_precision == "auto"


@pytest.mark.parametrize(("flags", "has"), [("fpu avx512f avx512_bf16", True), ("fpu avx2", False)])
def test_the_flags_of_a_cpu_say_whether_it_computes_in_bf16(tmp_path: Path, flags: str, has: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: Some CPU\nflags\t\t: {flags}\n")
    assert cpu_computes_bf16(tmp_path / "cpuinfo") is has
    assert not cpu_computes_bf16(tmp_path / "none")


def test_a_choice_is_what_a_settings_file_takes() -> None:
    sections = choose_training(UNKNOWN_MODEL, None, CARD).sections()
    ModelSettings.model_validate(sections["model"])
    HyperparamSettings.model_validate(sections["hyperparams"])
    assert MonitoringSettings.model_validate(sections["monitoring"]).preview_interval <= 24, "seen in a short batch"


def example(question: str, answer: str) -> Example:
    return Example(messages=(Message(role="user", content=question), Message(role="assistant", content=answer)))


def test_rows_are_measured_with_the_models_own_template(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    rows = row_facts([example("1+2=", "3")], model)
    assert rows is not None
    assert rows.longest == 11, "five characters; two openers, ends of turn and newlines"


def test_rows_are_estimated_where_the_template_refuses_them_or_there_is_none(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    plain = row_facts([example("how long is this?", "long")])
    refused = row_facts([example("how long is this?", "long")], model)
    assert plain is not None
    assert refused is not None
    assert 40 < plain.longest < refused.longest < 100
    assert row_facts([]) is None


def test_a_vocabulary_without_a_template_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    rows = row_facts([example("a", "b")], tmp_path)
    assert rows is not None
    assert rows.longest > 40
