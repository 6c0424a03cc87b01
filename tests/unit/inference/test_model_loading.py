"""What a checkpoint folder is refused for, each with the name of the culprit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.inference.model_loading import load_model, pick_hardware
from ratchet.settings.serving import InferenceSettings
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(lively: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(lively, tmp_path / "model")


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_a_whole_folder_loads_with_its_digest(folder: Path) -> None:
    generator = LocalGenerator.load(folder, expected_weights=weights_digest(folder))
    assert generator.weights == weights_digest(folder)
    assert generator.context == 1024


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenCheckpoint, match="nowhere is not a folder"):
        check_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BrokenCheckpoint, match=f"{name} is missing"):
        LocalGenerator.load(folder)


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BrokenCheckpoint, match=r"has no tokenizer.*tokenizer\.json"):
        LocalGenerator.load(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": WEIGHTS, "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BrokenCheckpoint, match="model-00002-of-00002\\.safetensors is missing"):
        check_folder(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_named(folder: Path, kept: int) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    with pytest.raises(BrokenCheckpoint, match=WEIGHTS):
        LocalGenerator.load(folder)


def test_a_header_that_is_not_json_is_named(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((4).to_bytes(8, "little") + b"nope")
    with pytest.raises(BrokenCheckpoint, match="no readable safetensors header"):
        check_folder(folder)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    torch.save({"lm_head.weight": torch.zeros(2, 2)}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(BrokenCheckpoint, match=f"{WEIGHTS} is missing"):
        LocalGenerator.load(folder)


def test_code_in_the_folder_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(BrokenCheckpoint, match="auto_map"):
        LocalGenerator.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, value: float) -> None:
    edit_weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(value))
    with pytest.raises(BrokenCheckpoint, match=r"model\.norm\.weight holds NaN or infinite"):
        LocalGenerator.load(folder)


def test_a_tensor_that_is_missing_is_named(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(BrokenCheckpoint, match=r"missing keys.*model\.norm\.weight"):
        LocalGenerator.load(folder)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(BrokenCheckpoint, match=r"model\.norm\.weight"):
        LocalGenerator.load(folder)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", vocab_size=300)
    name = "model.embed_tokens.weight"
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name][:300].clone()}))
    with pytest.raises(BrokenCheckpoint, match="wrong vocabulary: the tokenizer has 337 tokens, the model 300"):
        LocalGenerator.load(folder)


def test_other_weights_than_expected_are_refused(folder: Path) -> None:
    with pytest.raises(BrokenCheckpoint, match="not the expected 000000000000"):
        LocalGenerator.load(folder, expected_weights="0" * 64)


def test_a_loaded_model_does_not_depend_on_its_files(folder: Path) -> None:
    loaded = load_model(folder, pick_hardware(InferenceSettings()))
    before = loaded.model.model.norm.weight.clone()
    (folder / WEIGHTS).write_bytes(b"\xff" * (folder / WEIGHTS).stat().st_size)
    assert torch.equal(loaded.model.model.norm.weight, before)


def test_a_cpu_computes_in_fp32_by_default() -> None:
    told = pick_hardware(InferenceSettings(device="cpu", dtype="bf16", attention="eager"))
    assert pick_hardware(InferenceSettings(device="cpu")).dtype == "fp32"
    assert (told.dtype, told.torch_dtype, told.gpu_class) == ("bf16", torch.bfloat16, "cpu")
    assert told.engine.endswith("/eager")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"inference\.device"):
        pick_hardware(InferenceSettings(device="cuda:0"))


@pytest.mark.parametrize(
    ("changed", "chosen"),
    [
        ({"device": "mps"}, ("mps", "fp32", "sdpa")),
        ({"dtype": "fp16"}, ("cpu", "fp16", "sdpa")),
        ({"attention": "eager"}, ("cpu", "fp32", "eager")),
    ],
    ids=["device", "dtype", "attention"],
)
def test_device_dtype_and_attention_follow_the_settings(changed: dict[str, str], chosen: tuple[str, str, str]) -> None:
    told = pick_hardware(InferenceSettings.model_validate({"device": "cpu", **changed}))
    assert (told.device, told.dtype, told.attention) == chosen
