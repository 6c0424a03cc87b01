"""Adapters on a real pretrained model: judged, exported and read by transformers, they are one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ratchet.export.write_folder import MODELFILE, ExportSpec, write_folder
from ratchet.inference.model_folder import SINGLE, stored_dtype, weights_digest
from ratchet.inference.model_loading import load_model, pick_hardware
from ratchet.settings.serving import InferenceSettings
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.adapters import build_adapter
from tests.support.pretrained import pretrained_model

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(1_800)]


def test_a_pretrained_model_with_adapters_is_exported_as_it_was_judged(tmp_path: Path) -> None:
    base = pretrained_model()
    adapters = build_adapter(tmp_path / "adapters", base, name="HuggingFaceTB/SmolLM2-135M-Instruct")
    out = tmp_path / "out"
    out.mkdir()
    spec = ExportSpec(checkpoint=adapters, weights=weights_digest(adapters), folder=out, ollama=True)
    done = write_folder(spec.model_dump(mode="json"), lambda _message: None)
    assert stored_dtype(out) == "bf16"
    assert (out / SINGLE).stat().st_size == pytest.approx((base / SINGLE).stat().st_size, rel=0.01)

    judged = load_model(adapters, pick_hardware(InferenceSettings(device="cpu")), weights_digest(adapters))
    tokenizer = AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    exported = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(exported(input_ids=ids).logits, judged.model(input_ids=ids).logits)

    modelfile = (out / MODELFILE).read_text()
    assert done == {"templated": True}
    assert 'PARAMETER stop "<|im_end|>"' in modelfile
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}' in modelfile
