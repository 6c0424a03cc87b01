"""The memory estimate of training, by part; measured memory is compared with it in unit/trainer."""

from __future__ import annotations

from typing import Any

from ratchet.settings.training import EnvironmentSettings, HyperparamSettings, ModelSettings
from ratchet.training_memory import ModelFacts, ProcessLayout, computes_in_16_bits, estimate_memory, trained_parameters

SMALL = ModelFacts(600_000_000, hidden=1024, intermediate=3072, layers=28, vocabulary=151_936, attention=2048)
MIDDLE = ModelFacts(3_000_000_000, hidden=2560, intermediate=9_728, layers=36, vocabulary=151_936)
LARGE = ModelFacts(8_000_000_000, hidden=4096, intermediate=12_288, layers=36, vocabulary=151_936)
SMOLLM = ModelFacts(
    134_515_008, hidden=576, intermediate=1536, layers=30, vocabulary=49_152, attention=576, key_value=192
)
CARD = 24_000_000_000


def held(processes: int, parallelism: str = "ddp", half: bool = True, **settings: Any) -> int:
    """Bytes of weights, gradients and moments that each process holds."""
    layout = ProcessLayout.of(processes, EnvironmentSettings.model_validate({"parallelism": parallelism}))
    model = ModelSettings.model_validate(settings)
    found = estimate_memory(MIDDLE, model, HyperparamSettings(batch_size=1), half=half, layout=layout)
    return found.weights + found.gradients


def test_sharded_memory_is_divided_and_gathered_memory_is_not() -> None:
    alone = held(1)
    assert alone == 18 * MIDDLE.parameters, "in fp32, with a copy in 16 bits"
    assert held(1, half=False) == 16 * MIDDLE.parameters
    assert held(4) == alone + 4 * MIDDLE.parameters, "DDP holds all of it, and each gradient twice"
    assert alone / 4 < held(4, "fsdp") < alone / 4 + 6 * MIDDLE.parameters
    assert held(8, "fsdp") < CARD < held(2, "fsdp") < alone
    assert held(1, "fsdp") == alone
    assert held(4, lora_rank=8) < held(4, "fsdp")


def needed(facts: ModelFacts, batch_size: int = 1, max_length: int = 1024, **model: object) -> int:
    hyperparams = HyperparamSettings(batch_size=batch_size, max_length=max_length)
    return estimate_memory(facts, ModelSettings.model_validate(model), hyperparams, half=True).total


def test_a_card_of_24_gb_holds_all_weights_of_a_small_model_and_adapters_of_a_large_one() -> None:
    assert needed(SMALL, gradient_checkpointing=True) < CARD
    assert needed(LARGE, gradient_checkpointing=True) > CARD
    assert needed(LARGE, gradient_checkpointing=True, lora_rank=16, load_in_4bit=True) < CARD


def test_every_suggestion_needs_less_memory() -> None:
    least = needed(SMALL, batch_size=8, lora_rank=16, load_in_4bit=True, gradient_checkpointing=True)
    adapters = needed(SMALL, batch_size=8, lora_rank=16, gradient_checkpointing=True)
    whole = needed(SMALL, batch_size=8, gradient_checkpointing=True)
    assert least < adapters < whole < needed(SMALL, batch_size=8)
    assert needed(SMALL, batch_size=4) < needed(SMALL, batch_size=8)
    assert needed(SMALL, max_length=512) < needed(SMALL)


def test_gradients_that_are_kept_add_to_activations() -> None:
    once, twice = HyperparamSettings(batch_size=4), HyperparamSettings(batch_size=4, gradient_accumulation=2)
    model = ModelSettings()
    alone, accumulated = (estimate_memory(SMALL, model, each, half=True).total for each in (once, twice))
    assert accumulated == alone + 4 * SMALL.parameters


def test_adapters_are_counted_on_every_linear_layer() -> None:
    assert trained_parameters(SMOLLM, ModelSettings(lora_rank=16)) == 4_884_480, "as peft reports for this model"
    assert trained_parameters(SMOLLM, ModelSettings()) == SMOLLM.parameters


def test_precision_follows_the_setting_and_the_device() -> None:
    assert computes_in_16_bits("bf16", on_gpu=False)
    assert computes_in_16_bits("auto", on_gpu=True)
    assert not computes_in_16_bits("auto", on_gpu=False)
    assert not computes_in_16_bits("fp32", on_gpu=True)
