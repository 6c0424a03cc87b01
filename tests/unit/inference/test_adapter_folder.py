"""Adapters and their base: found beside them, merged as they are loaded, and written as whole weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch
from ratchet.artifacts import ArtifactStore
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.adapter_folder import BaseReference, base_name, whole_base
from ratchet.inference.model_folder import add_old_keys, stored_dtype, weights_digest
from ratchet.inference.model_loading import load_merged, load_model, pick_hardware, write_merged
from ratchet.inference.tiny import build_tiny_model
from ratchet.settings.serving import InferenceSettings
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from tests.support.adapters import ALPHA, RANK, build_adapter

Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in bf16."""
    folder = build_tiny_model(tmp_path_factory.mktemp("base") / "tiny")
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def adapters(base: Path) -> Path:
    return build_adapter(base.parent / "adapters", base)


def test_the_sum_is_rounded_once_to_the_precision_of_the_base(base: Path, adapters: Path) -> None:
    tensors, before = load_file(adapters / "adapter_model.safetensors"), load_file(base / "model.safetensors")
    a, b = (tensors[f"base_model.model.{Q_PROJ}.lora_{end}.weight"].double() for end in "AB")
    expected = before[f"{Q_PROJ}.weight"].double() + ALPHA / RANK * b @ a
    merged = load_merged(adapters)
    assert torch.equal(merged.get_parameter(f"{Q_PROJ}.weight"), expected.bfloat16())
    untouched = "model.layers.0.self_attn.v_proj.weight"
    assert torch.equal(merged.get_parameter(untouched), before[untouched])


def test_a_judge_loads_the_weights_that_are_written(adapters: Path, tmp_path: Path) -> None:
    write_merged(adapters, tmp_path / "whole")
    assert stored_dtype(tmp_path / "whole") == "bf16"
    judged = load_model(adapters, pick_hardware(InferenceSettings(device="cpu")), weights_digest(adapters)).model
    written = load_file(tmp_path / "whole" / "model.safetensors")
    assert judged.dtype == torch.float32
    for name, tensor in written.items():
        assert torch.equal(judged.get_parameter(name), tensor.float()), name
    assert all(buffer.dtype == torch.float32 for name, buffer in judged.named_buffers() if "inv_freq" in name)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_merged_in_memory_and_read_from_a_folder_a_model_gives_the_same_logits(
    tmp_path: Path, dtype: Literal["fp32", "bf16"]
) -> None:
    """Also where the base, in fp32, is converted: the frequencies of its rotary embeddings are not."""
    adapters = build_adapter(tmp_path / "adapters", build_tiny_model(tmp_path / "base"))
    write_merged(adapters, tmp_path / "whole")
    hardware = pick_hardware(InferenceSettings(device="cpu", dtype=dtype))
    ids = torch.arange(3, 200)[None]
    with torch.no_grad():
        one, other = (
            load_model(folder, hardware).model(input_ids=ids).logits for folder in (adapters, tmp_path / "whole")
        )
    assert torch.equal(one, other)


def test_the_tokenizer_is_of_a_class_that_transformers_4_knows(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tiny")
    before = AutoTokenizer.from_pretrained(folder)
    add_old_keys(folder)
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    after = AutoTokenizer.from_pretrained(folder)
    text = " 12+3= <|im_start|>user\n\u2028 é\t"
    assert after.encode(text) == before.encode(text)
    assert after.special_tokens_map == before.special_tokens_map


def test_adapters_on_adapters_are_merged_one_after_the_other(base: Path, adapters: Path, tmp_path: Path) -> None:
    second = build_adapter(tmp_path / "second", base, seed=1)
    write_merged(adapters, tmp_path / "whole")
    on_whole = build_adapter(tmp_path / "on-whole", tmp_path / "whole", seed=1)
    BaseReference.to(adapters, weights_digest(adapters), "lora", ALPHA / RANK).write(second)
    assert whole_base(second) == base
    chained, flat = load_merged(second), load_merged(on_whole)
    for name, tensor in flat.named_parameters():
        assert torch.equal(chained.get_parameter(name), tensor), name


def test_in_a_store_the_base_is_the_artifact_beside_it(base: Path, tmp_path: Path) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    published = store.publish(base, "checkpoint", {})
    folder = build_adapter(tmp_path / "adapters", store.fetch(published.id))
    reference = BaseReference.read(folder)
    assert (reference.artifact, reference.path) == (published.id, None)
    artifact = store.publish(folder, "checkpoint", {}, requires=[published.id])
    assert whole_base(store.fetch(artifact.id)) == store.fetch(published.id)
    assert base_name(store.fetch(artifact.id)) == "acme/base"
    load_merged(store.fetch(artifact.id))


def test_files_that_do_not_fit_are_refused_by_name(adapters: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(adapters, tmp_path / "copy"))
    tensors = load_file(copy / "adapter_model.safetensors")
    for wrong in (
        {name.replace("layers.0", "layers.7"): tensor for name, tensor in tensors.items()},
        {name: tensor[:, :1] for name, tensor in tensors.items()},
        {**tensors, "base_model.model.lm_head.bias": torch.zeros(3)},
    ):
        save_file({name: tensor.contiguous() for name, tensor in wrong.items()}, copy / "adapter_model.safetensors")
        with pytest.raises(BrokenCheckpoint, match=r"copy/adapter_model\.safetensors"):
            load_merged(copy)
    (copy / "base.json").write_text('{"artifact": 7}')
    with pytest.raises(BrokenCheckpoint, match=r"base\.json: artifact"):
        load_merged(copy)


def test_old_readers_find_the_rope_of_a_new_configuration(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tiny")
    path = folder / "config.json"
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}
    for rope, old in (
        ({"rope_type": "default", "rope_theta": 1e5}, (1e5, None)),
        (scaled, (5e5, {"rope_type": "linear", "factor": 4.0})),
    ):
        config = {**json.loads(path.read_text()), "rope_parameters": rope}
        path.write_text(
            json.dumps({key: value for key, value in config.items() if key[:5] != "rope_" or value is rope})
        )
        add_old_keys(folder)
        written = json.loads(path.read_text())
        assert (written["rope_theta"], written["rope_scaling"]) == old
        assert AutoConfig.from_pretrained(folder).rope_parameters == rope
    by_layer = {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}
    path.write_text(json.dumps({"rope_parameters": by_layer}))
    add_old_keys(folder)
    assert json.loads(path.read_text()) == {"rope_parameters": by_layer}
