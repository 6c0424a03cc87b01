"""The model to train: LoRA adapters, new tokens, and families of models."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.adapter_folder import BaseReference, base_name
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.inference.model_loading import load_merged, write_merged
from ratchet.inference.model_loading import load_model as load_for_inference
from ratchet.inference.model_loading import pick_hardware as pick_for_inference
from ratchet.inference.tiny import VOCABULARY_SIZE, build_tiny_model, build_tiny_tokenizer
from ratchet.profiles.plain import Plain
from ratchet.profiles.profile import get_profile
from ratchet.settings.serving import InferenceSettings
from ratchet.settings.training import ModelSettings, TrainerConfig
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from trainer.batches import MicroBatch, collate, pack
from trainer.core import TrainingResult
from trainer.dataset import examples_of, prepare_rows
from trainer.distributed import Processes
from trainer.hardware import pick_hardware
from trainer.model import Adapters, Trainable, add_tokens, load_model
from trainer.segment import ErrorKind, read_state_info, training_mode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.support.examples import sums, write_examples

Train = Callable[..., TrainingResult]
LORA = {"model__lora_rank": 4, "hyperparams__learning_rate": 5e-3}


def after(result: TrainingResult, base_model: Path) -> dict[str, str | None]:
    """Adapters are resumed on their base weights."""
    return {"model__path": str(base_model), "output__resume_from": result.state_path}


IDS = torch.arange(3, 40)[None]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_learn_and_are_saved_without_a_merged_copy(train: Train, sum_file: Path, base_model: Path) -> None:
    result = train(sum_file, **LORA, hyperparams__num_epochs=3)
    assert result.success, result.error_message
    curve = [loss for _, loss in result.summary["loss_curve"]]
    assert curve[-1] < curve[0]
    folder = Path(str(result.last_checkpoint_path))
    check_folder(folder)
    assert weights_digest(folder) == result.summary["weights"] != weights_digest(base_model)
    assert [file.name for file in folder.glob("*.safetensors")] == ["adapter_model.safetensors"]
    kept, own = (json.loads((place / "config.json").read_text()) for place in (base_model, folder))
    assert own == {**kept, "rope_theta": 10000.0, "rope_scaling": None}
    assert PeftConfig.from_pretrained(folder).base_model_name_or_path == base_name(folder) == str(base_model)
    assert BaseReference.read(folder).weights == weights_digest(base_model)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_what_is_judged_exported_and_read_by_peft_is_one_model(
    train: Train, sum_file: Path, base_model: Path, tmp_path: Path
) -> None:
    folder = Path(str(train(sum_file, **LORA).last_checkpoint_path))
    write_merged(folder, tmp_path / "whole")
    judged = logits(load_merged(folder))
    assert torch.equal(judged, logits(AutoModelForCausalLM.from_pretrained(tmp_path / "whole")))
    separate = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), folder)
    torch.testing.assert_close(judged, logits(separate), rtol=1e-4, atol=1e-4)
    check_folder(tmp_path / "whole")
    names = {file.name for file in (tmp_path / "whole").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names
    assert not {"adapter_model.safetensors", "adapter_config.json", "base.json"} & names


def test_other_base_weights_or_none_are_refused_by_digest(train: Train, sum_file: Path, tmp_path: Path) -> None:
    own = shutil.copytree(build_tiny_model(tmp_path / "own"), tmp_path / "base")
    folder = Path(str(train(sum_file, **LORA, model__path=str(own), stop_after=1).last_checkpoint_path))
    expected = weights_digest(folder)
    loaded = load_for_inference(folder, pick_for_inference(InferenceSettings()), expected)
    assert loaded.weights == expected
    shutil.copyfile(build_tiny_model(tmp_path / "other", seed=1) / "model.safetensors", own / "model.safetensors")
    with pytest.raises(BrokenCheckpoint, match=r"but the adapters in .* belong to"):
        load_merged(folder)
    shutil.rmtree(own)
    with pytest.raises(BrokenCheckpoint, match=r"base weights of the adapters .* is missing"):
        load_merged(folder)


def test_a_changed_factor_or_base_is_another_model(train: Train, sum_file: Path) -> None:
    folder = Path(str(train(sum_file, **LORA, stop_after=1).last_checkpoint_path))
    before, reference = weights_digest(folder), BaseReference.read(folder)
    digests = {before}
    for change in ({"scale": 3.0}, {"weights": "0" * 64}):
        reference.model_copy(update=change).write(folder)
        digests.add(weights_digest(folder))
    assert len(digests) == 3


def test_adapters_of_the_same_shape_are_continued_and_others_start_on_the_merged_weights(
    train: Train, sum_file: Path, base_model: Path
) -> None:
    first = Path(str(train(sum_file, "first", **LORA, stop_after=4).last_checkpoint_path))
    begin = {"model__path": str(first), "stop_after": 1, "hyperparams__learning_rate": 1e-9}
    same = Path(str(train(sum_file, "same", model__lora_rank=4, **begin).last_checkpoint_path))
    assert BaseReference.read(same) == BaseReference.read(first)
    assert base_name(same) == str(base_model)
    other = Path(str(train(sum_file, "other", model__lora_rank=8, **begin).last_checkpoint_path))
    assert BaseReference.read(other).weights == weights_digest(first)
    whole = Path(str(train(sum_file, "whole", **begin).last_checkpoint_path))
    assert (whole / "model.safetensors").exists()
    expected = logits(load_merged(first))
    assert not torch.allclose(expected, logits(load_merged(base_model)), atol=1e-4)
    for folder in (same, other, whole):
        torch.testing.assert_close(logits(load_merged(folder)), expected, rtol=1e-4, atol=1e-4)


def test_only_adapters_are_kept_in_the_state(train: Train, sum_file: Path) -> None:
    result = train(sum_file, **LORA, stop_after=2)
    state = Path(str(result.state_path))
    info = read_state_info(state)
    assert info is not None
    assert info.mode == training_mode(ModelSettings(lora_rank=4))
    assert all("lora_" in name for name in load_file(state / "master.safetensors"))
    assert all("lora_" in name for name in load_file(state / "optimizer.safetensors"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stopped_twice_ends_with_the_same_bits(
    train: Train, sum_file: Path, base_model: Path, precision: str
) -> None:
    settings = {**LORA, "hyperparams__fp_precision": precision}
    straight = train(sum_file, "straight", **settings)
    first = train(sum_file, "first", stop_after=3, **settings)
    second = train(sum_file, "second", stop_after=5, **settings, **after(first, base_model))
    third = train(sum_file, "third", **settings, **after(second, base_model))
    assert third.success, third.error_message
    assert [r.finished for r in (first, second, third)] == [False, False, True]
    assert third.summary["weights"] == straight.summary["weights"]


def test_a_state_of_other_adapters_or_none_is_refused(train: Train, sum_file: Path, base_model: Path) -> None:
    first = train(sum_file, "first", stop_after=1, **LORA)
    wider = train(sum_file, "wider", **{**LORA, "model__lora_rank": 8}, **after(first, base_model))
    whole = train(sum_file, "whole", **after(first, base_model))
    for result in (wider, whole):
        assert result.error_kind is ErrorKind.RESUME, result.error_message
    assert "rank=4" in str(wider.error_message)


def test_layers_that_the_model_lacks_are_a_wrong_setting(train: Train, sum_file: Path) -> None:
    result = train(sum_file, **LORA, model__lora_targets=("c_attn",))
    assert result.error_kind is ErrorKind.SETTINGS
    assert "lora_targets" in str(result.error_message)
    few = train(sum_file, "few", **LORA, model__lora_targets=("q_proj", "v_proj"), stop_after=1)
    names = load_file(Path(str(few.state_path)) / "master.safetensors")
    assert {name.split(".")[-4] for name in names} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_tied_embeddings_take_no_adapters(train: Train, sum_file: Path, target: str) -> None:
    """Merging into one would change the other, which did not happen in training."""
    result = train(sum_file, **LORA, model__lora_targets=[target, "q_proj"])
    assert result.error_kind is ErrorKind.SETTINGS
    assert "with tied embedding and head" in str(result.error_message)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_untied_embeddings_take_adapters(train: Train, sum_file: Path, tmp_path: Path, target: str) -> None:
    untied = build_tiny_model(tmp_path / "untied", tie_word_embeddings=False)
    result = train(sum_file, **LORA, model__lora_targets=[target], model__path=str(untied))
    assert result.success, result.error_message
    folder = Path(str(result.last_checkpoint_path))
    old, new = logits(AutoModelForCausalLM.from_pretrained(untied)), logits(load_merged(folder))
    separate = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(untied), folder)
    torch.testing.assert_close(new, logits(separate), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(old, new, atol=1e-4)


def test_weights_of_4_bits_need_adapters_and_bitsandbytes(
    train: Train, sum_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="lora_rank"):
        ModelSettings(load_in_4bit=True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    result = train(sum_file, **LORA, model__load_in_4bit=True)
    assert result.error_kind is ErrorKind.SETTINGS
    assert "pip install" in str(result.error_message)


FOUR_BITS = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install 'services/trainer[4bit]'"
)


@FOUR_BITS
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adapters_on_4_bit_weights_learn_across_a_stop_and_a_preview(
    train: Train, sum_file: Path, base_model: Path, precision: str
) -> None:
    settings = {**LORA, "model__load_in_4bit": True, "hyperparams__fp_precision": precision}
    settings |= {"monitoring__logging_steps": 1, "monitoring__preview_interval": 2, "hyperparams__schedule": "constant"}
    straight = train(sum_file, "straight", **settings)
    first = train(sum_file, "first", **settings, stop_after=5)
    second = train(sum_file, "second", **settings, **after(first, base_model))
    assert second.success, second.error_message
    curve = [loss for _, loss in straight.summary["loss_curve"]]
    assert curve[-1] < curve[0]
    assert second.summary["weights"] == straight.summary["weights"]
    info = read_state_info(Path(str(second.state_path)))
    assert info is not None
    assert "bits=4" in info.mode
    assert all("lora_" in name for name in load_file(Path(str(second.state_path)) / "master.safetensors"))
    served, base = load_merged(Path(str(second.last_checkpoint_path))), load_merged(base_model)
    assert torch.equal(served.model.norm.weight, base.model.norm.weight), "the base in its own precision is served"


@FOUR_BITS
def test_weights_of_4_bits_are_not_sharded(configure: Callable[..., TrainerConfig]) -> None:
    config = configure(Path("x"), **LORA, model__load_in_4bit=True, environment__parallelism="fsdp")
    with pytest.raises(SettingsError, match="fsdp cannot shard 4-bit weights"):
        pick_hardware(config, Processes(0, 2))


def test_the_shape_of_adapters_follows_the_settings(base_model: Path) -> None:
    def shaped(**settings: float) -> tuple[int, float]:
        model = AutoModelForCausalLM.from_pretrained(base_model)
        Adapters(model, ModelSettings.model_validate(settings), 1, base_model, "base")
        layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
        return layer.r["default"], layer.scaling["default"]

    assert shaped(lora_rank=4) == (4, 2.0)
    assert shaped(lora_rank=8) == (8, 2.0)
    assert shaped(lora_rank=4, lora_alpha=16.0) == (4, 4.0)


def roomy(folder: Path, rows: int) -> Path:
    return build_tiny_model(folder / "roomy", vocab_size=rows)


@pytest.mark.parametrize("name", ["emoji_think", "regime3"])
def test_profile_texts_become_one_token_each_with_unused_rows(tmp_path: Path, name: str) -> None:
    texts = get_profile(name).tokens()
    folder = roomy(tmp_path, 337 + len(texts))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    spelled = [tokenizer.encode(text) for text in texts]
    weight = model.get_input_embeddings().weight
    means = [weight[pieces].mean(0).detach().clone() for pieces in spelled]

    assert add_tokens(model, tokenizer, texts)

    assert [tokenizer.encode(text) for text in texts] == [[337 + place] for place in range(len(texts))]
    torch.testing.assert_close(list(weight[337:]), means)
    line = f"so {texts[0]}{texts[1]}, {texts[0]}\n5"
    assert tokenizer.decode(tokenizer.encode(line), skip_special_tokens=True) == line
    before = weight.detach().clone()
    assert add_tokens(model, tokenizer, texts)
    assert torch.equal(weight, before)
    assert len(tokenizer) == 337 + len(texts)


def test_without_unused_or_trained_rows_the_vocabulary_stays(tmp_path: Path) -> None:
    texts = get_profile("regime3").tokens()
    for rows, learns in ((338, True), (339, False)):
        folder = roomy(tmp_path / str(rows), rows)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        model.requires_grad_(learns)
        assert not add_tokens(model, tokenizer, texts)
        assert len(tokenizer) == 337


def test_a_checkpoint_carries_its_tokens_to_the_next_segment(
    train: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    data = write_examples(tmp_path / "sums.jsonl", sums(48))
    same = {"model__path": str(roomy(tmp_path, 344)), "profile__name": "regime3"}
    whole = train(data, "whole", **same)
    first = train(data, "first", stop_after=3, **same)
    second = train(data, "second", after=first, profile__name="regime3")
    assert second.summary["weights"] == whole.summary["weights"]
    tokenizer = AutoTokenizer.from_pretrained(first.last_checkpoint_path)
    assert len(tokenizer.encode("<<ANS_START>>")) == 1


NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GROUPED = {**NARROW, "num_key_value_heads": 1}
CAPPED = {"head_dim": 16, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 1}

FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}, "sdpa_varlen"),
    "qwen2, tied": ("qwen2", {**GROUPED, "tie_word_embeddings": True}, "sdpa_varlen"),
    "mistral, window": ("mistral", {**GROUPED, "head_dim": 16, "sliding_window": 16}, "sdpa"),
    "gemma2, window and capped": ("gemma2", {**GROUPED, **CAPPED, "sliding_window": 16}, "eager"),
    "bloom, no places": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, "eager"),
}
"""Type of transformers, the shape, and the attention that it is trained with on a CPU."""


def build(folder: Path, kind: str, shape: dict[str, Any]) -> Path:
    """Wide random weights, so that the answer depends on every visible token."""
    tokenizer = build_tiny_tokenizer()
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY_SIZE, **special, **shape)
    model = AutoModelForCausalLM.from_config(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The model's folder, and the attention expected of it."""
    kind, shape, attention = FAMILIES[request.param]
    return build(tmp_path_factory.mktemp("families") / kind, kind, shape), attention


@torch.no_grad()
def loss_of(trainable: Trainable, batches: list[MicroBatch]) -> float:
    """Mean over the trained tokens."""
    total, count = 0.0, 0
    for batch in batches:
        position_ids = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
        logits = trainable.model(input_ids=batch.inputs, use_cache=False, **position_ids).logits[
            :, -batch.logits_to_keep :
        ]
        total += float(cross_entropy(logits.flatten(0, 1)[batch.target_positions], batch.targets, reduction="sum"))
        count += batch.trained_tokens
    return total / count


def test_rows_in_a_batch_have_the_loss_of_single_rows(
    family: tuple[Path, str], configure: Callable[..., TrainerConfig], sum_file: Path
) -> None:
    config = configure(sum_file, model__path=str(family[0]), hyperparams__max_length=128)
    trainable = load_model(config, pick_hardware(config), Plain())
    trainable.model.eval()
    rows = prepare_rows(examples_of(sum_file), Plain(), trainable.tokenizer, system_prompt="", max_length=128).rows
    alone = loss_of(trainable, [collate([row], 0) for row in rows])
    beside = pack(rows) if trainable.supports_packing else collate(rows, 0)
    assert trainable.attention == family[1]
    assert loss_of(trainable, [beside]) == pytest.approx(alone, rel=1e-5)


def test_an_unusual_architecture_is_trained_and_answers_in_batches_as_alone(
    family: tuple[Path, str], train: Callable[..., TrainingResult], sum_file: Path
) -> None:
    result = train(sum_file, model__path=str(family[0]), hyperparams__max_length=128)
    assert result.success, result.error_message
    generator = LocalGenerator.load(Path(str(result.last_checkpoint_path)))
    assert generator.hardware.attention == ("eager" if family[1] == "eager" else "sdpa")
    chats = [(Message(role="user", content=text),) for text in ("1+2=", "11+22+33+44+55+66+77+88+99=")]
    decoding = Decoding(max_new_tokens=8)
    together = generator.generate(chats, decoding)
    assert [answer.token_ids for answer in together] == [
        generator.generate([chat], decoding)[0].token_ids for chat in chats
    ]
    scored = generator.score(chats, [answer.token_ids for answer in together])
    for answer, logprobs in zip(together, scored, strict=True):
        assert logprobs == pytest.approx(answer.token_logprobs, abs=1e-4)


def test_a_model_without_a_kv_cache_is_refused_before_training(
    train: Callable[..., TrainingResult], sum_file: Path, tmp_path: Path
) -> None:
    folder = build(tmp_path / "mamba", "mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4})
    result = train(sum_file, model__path=str(folder), hyperparams__max_length=128)
    assert "MambaForCausalLM has no KV cache" in str(result.error_message)
    with pytest.raises(BrokenCheckpoint, match="only decoders with attention"):
        LocalGenerator.load(folder)
