"""What a run computes on is what the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ratchet.errors import SettingsError
from trainer.config import create_default_config
from trainer.hardware import Hardware, pick_hardware


def picked(name: str, value: str) -> Hardware:
    overrides = {"environment.device": "cpu", name: value}
    return pick_hardware(create_default_config(Path("rows.jsonl"), Path("run"), overrides=overrides))


@pytest.mark.parametrize(
    ("fp_precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_precision_of_the_saved_weights_is_set(fp_precision: str, dtype: torch.dtype) -> None:
    assert picked("hyperparams.fp_precision", fp_precision).saved_dtype == dtype


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_kernel_is_set(attention: str) -> None:
    assert picked("model.attention", attention).attention == attention


def test_what_needs_a_gpu_is_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError, match=r"model\.attention flash_attention_2 needs a GPU"):
        picked("model.attention", "flash_attention_2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match=r"environment\.device is 'cuda:0'"):
        picked("environment.device", "cuda:0")
