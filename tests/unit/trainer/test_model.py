"""The model to train: LoRA adapters, new tokens, and families of models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.inference.tiny import VOCABULARY_SIZE, build_tiny_model, build_tiny_tokenizer
from ratchet.profiles.plain import Plain
from ratchet.profiles.profile import get_profile
from ratchet.settings.training import ModelSettings, TrainerConfig
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from trainer.batches import MicroBatch, collate, pack
from trainer.core import TrainingResult
from trainer.dataset import examples_of, prepare_rows
from trainer.distributed import Processes
from trainer.hardware import Hardware, pick_hardware
from trainer.model import Adapters, Trainable, add_tokens, load_model, merge_into_full_precision
from trainer.segment import ErrorKind, read_state_info, training_mode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.support.examples import sums, write_examples

Train = Callable[..., TrainingResult]
LORA = {"model__lora_rank": 4, "hyperparams__learning_rate": 5e-3}


def after(result: TrainingResult, base_model: Path) -> dict[str, str | None]:
    """Adapters are resumed on their base weights."""
    return {"model__path": str(base_model), "output__resume_from": result.state_path}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_learn_and_a_merged_model_is_saved(train: Train, sum_file: Path, base_model: Path) -> None:
    result = train(sum_file, **LORA, hyperparams__num_epochs=3)
    assert result.success, result.error_message
    curve = [loss for _, loss in result.summary["loss_curve"]]
    assert curve[-1] < curve[0]
    folder = Path(str(result.last_checkpoint_path))
    check_folder(folder)
    assert weights_digest(folder) == result.summary["weights"] != weights_digest(base_model)
    ids = torch.arange(3, 40)[None]
    served = AutoModelForCausalLM.from_pretrained(folder).eval()
    separate = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), folder / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(served(input_ids=ids).logits, separate(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


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
    merged = train(sum_file, "merged", **LORA, after=first)
    for result in (wider, whole, merged):
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
    folder, ids = Path(str(result.last_checkpoint_path)), torch.arange(3, 40)[None]
    merged = AutoModelForCausalLM.from_pretrained(folder).eval()
    before = AutoModelForCausalLM.from_pretrained(untied).eval()
    with torch.no_grad():
        old, new = before(input_ids=ids).logits, merged(input_ids=ids).logits
        separate = PeftModel.from_pretrained(before, folder / "adapter").eval()
        torch.testing.assert_close(new, separate(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
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
    served = AutoModelForCausalLM.from_pretrained(second.last_checkpoint_path, dtype="auto")
    base = AutoModelForCausalLM.from_pretrained(base_model)
    assert served.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert torch.equal(served.model.norm.weight, base.model.norm.weight.to(served.dtype)), "whole weights are served"


@FOUR_BITS
def test_weights_of_4_bits_are_not_sharded(configure: Callable[..., TrainerConfig]) -> None:
    config = configure(Path("x"), **LORA, model__load_in_4bit=True, environment__parallelism="fsdp")
    with pytest.raises(SettingsError, match="fsdp cannot shard 4-bit weights"):
        pick_hardware(config, Processes(0, 2))


def test_saved_adapters_merge_into_full_precision_weights(train: Train, sum_file: Path, base_model: Path) -> None:
    result = train(sum_file, **LORA)
    folder = Path(str(result.last_checkpoint_path))
    again = merge_into_full_precision(str(base_model), folder / "adapter", Hardware("cpu", "fp32", "sdpa"))
    published = AutoModelForCausalLM.from_pretrained(folder)
    for name, tensor in published.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_shape_of_adapters_follows_the_settings(base_model: Path) -> None:
    def shaped(**settings: float) -> tuple[int, float]:
        model = AutoModelForCausalLM.from_pretrained(base_model)
        Adapters(model, ModelSettings.model_validate(settings), 1, str(base_model))
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
