"""Loading a model to train: from a folder or the hub, with adapters or quantized, onto its device.

Given a checkpoint of adapters of the shape that is to be trained, training continues them on their base; given one of
another shape, it begins on the merged weights. Only safetensors are read, and no code from the folder runs. Trained
weights are in fp32. This module knows nothing of rows or the training loop.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.file_lock import FileLock
from ratchet.inference.adapter_folder import (
    ADAPTER_CONFIG,
    BaseReference,
    base_name,
    checked_base,
    is_adapter,
    whole_base,
)
from ratchet.inference.chat_template import Tokenizer, stop_ids
from ratchet.inference.model_folder import ADAPTER, CONFIG, check_folder, stored_dtype, weights_digest
from ratchet.inference.model_loading import DTYPES, fitting_attention, load_merged, require_cache, whole_weights
from ratchet.inference.tiny import resolve_model
from ratchet.profiles.profile import Profile
from ratchet.settings.training import ModelSettings, TrainerConfig
from ratchet.user_files import read_text
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.checkpoint import restore_master
from trainer.distributed import device_mesh, shard
from trainer.hardware import Hardware
from trainer.segment import training_mode
from trainer.varlen_attention import VARLEN, use_varlen_attention

transformers.utils.logging.disable_progress_bar()

NEEDED = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "model*.safetensors")
"""Files read from a hub repository: no code, and weights only as safetensors."""

LOAD_LOCK = ".turns"
"""Lock file in a run's folder, held by the process that is reading the model."""

_SMALL_MODEL = 10_000_000
_HIGHEST_RATE = 1e-3


@dataclass(frozen=True)
class Trainable:
    """A model that is ready to train, with all its weights or with adapters."""

    model: Any
    tokenizer: Tokenizer
    saved_dtype: torch.dtype
    """Dtype of the weights in checkpoints: that of the base model's files."""
    adapters: Adapters | None = None

    @property
    def base_weights(self) -> str | None:
        """Digest of the frozen weights under the adapters."""
        return self.adapters.base_weights if self.adapters is not None else None

    @property
    def attention(self) -> str:
        """Name of the attention kernel."""
        return str(self.model.config._attn_implementation)

    @property
    def supports_packing(self) -> bool:
        """Whether rows may be packed: each then attends only to itself."""
        return self.attention in ("flash_attention_2", VARLEN)


def resolve_local_model(config: TrainerConfig) -> TrainerConfig:
    """The configuration with local folders for model and tokenizer, so that the weights have a digest.

    The name as given stays that of the base model. Raises BrokenCheckpoint for a name that is neither a folder nor a
    model on the hub (offline: in its local cache).
    """
    model = config.model
    found = {"path": local_folder(resolve_model(model.path, config.output.output_dir), "model.path")}
    if model.tokenizer_path is not None:
        found["tokenizer_path"] = local_folder(model.tokenizer_path, "model.tokenizer_path")
    locked = config.locked.model_copy(update={"base_model": config.locked.base_model or model.path})
    return config.model_copy(update={"model": model.model_copy(update=found), "locked": locked})


def local_folder(name: str, setting: str) -> str:
    """An existing path unchanged; for a hub name the folder in the local cache, downloaded if necessary."""
    if Path(name).exists():
        return name
    try:
        return snapshot_download(name, allow_patterns=list(NEEDED))
    except (OSError, ValueError) as error:
        raise BrokenCheckpoint(f"{name} is neither a folder nor a model on the hub ({setting}): {error}") from error


def load_on_device(config: TrainerConfig, hardware: Hardware, profile: Profile) -> Trainable:
    """Load a model, restore its fp32 weights from a state to resume from, and put it on its device.

    Processes that shard a model read it one after the other, so that main memory holds only one full copy besides the
    shards. Raises the errors of load_model and restore_master.
    """
    if not hardware.sharded:
        trainable = _restored(config, hardware, profile)
        if not config.model.load_in_4bit:  # quantized weights are on their device already
            trainable.model.to(hardware.device)
        return trainable
    mesh = device_mesh(hardware)
    with FileLock.acquire(config.output.output_dir / LOAD_LOCK):
        trainable = _restored(config, hardware, profile)
        shard(trainable.model, hardware, mesh)
    return trainable


def _restored(config: TrainerConfig, hardware: Hardware, profile: Profile) -> Trainable:
    trainable = load_model(config, hardware, profile)
    if config.output.resume_from is not None:
        restore_master(config.output.resume_from, trainable.model)
    return trainable


def load_model(config: TrainerConfig, hardware: Hardware, profile: Profile) -> Trainable:
    """Load model and tokenizer from folders, and add the profile's tokens if the embedding has unused rows for them.

    Raises BrokenCheckpoint, ChatTemplateError or SettingsError.
    """
    folder = Path(config.model.path)
    check_folder(folder)
    base, start = _base_of(folder, config.model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model.tokenizer_path or folder, trust_remote_code=False)
        if config.model.chat_template is not None:
            tokenizer.chat_template = read_text(config.model.chat_template, SettingsError)
        model = _load_weights(base, config, hardware)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, BrokenCheckpoint) as error:
        raise BrokenCheckpoint(f"{folder} cannot be loaded (model.path): {error}") from error
    require_cache(model)
    keep_weight_layout(model)
    _check_fit(config, model, tokenizer)
    if config.model.attention == "auto" and not hardware.on_gpu:
        use_varlen_attention(model, config.hyperparams.max_length)
    adapters = None
    if config.model.lora_rank:
        name = config.locked.base_model or config.model.path
        adapters = Adapters(model, config.model, config.data.seed, base, name if start is None else base_name(start))
        if start is not None:
            adapters.load(start)
    add_tokens(model, tokenizer, profile.tokens())
    _set_stop_tokens(model, tokenizer)
    return Trainable(model.train(), tokenizer, DTYPES[stored_dtype(whole_base(base))], adapters)


def _base_of(folder: Path, model: ModelSettings) -> tuple[Path, Path | None]:
    """The folder of the weights to load, and that of adapters to continue on them, if there are any."""
    if model.lora_rank and is_adapter(folder) and BaseReference.read(folder).mode == training_mode(model):
        return checked_base(folder), folder
    return folder, None


def _load_weights(base: Path, config: TrainerConfig, hardware: Hardware) -> Any:
    """Trained weights in fp32, frozen ones in the precision of the run."""
    attention = fitting_attention(AutoConfig.from_pretrained(base, trust_remote_code=False), hardware.attention)
    if not config.model.load_in_4bit:
        dtype = hardware.compute_dtype if config.model.lora_rank else torch.float32
        return load_merged(base, dtype, attn_implementation=attention)
    with whole_weights(base, config.output.output_dir) as whole:
        return AutoModelForCausalLM.from_pretrained(
            whole,
            dtype=hardware.compute_dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            quantization_config=quantization(hardware),
            device_map={"": hardware.device},
        )


def _check_fit(config: TrainerConfig, model: Any, tokenizer: Tokenizer) -> None:
    if not tokenizer.is_fast:
        raise BrokenCheckpoint(f"{tokenizer.name_or_path} has no fast tokenizer (tokenizer.json)")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise BrokenCheckpoint(f"the tokenizer has {len(tokenizer)} tokens, the model only {rows}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rate = config.hyperparams.learning_rate
    if parameters > _SMALL_MODEL and rate > _HIGHEST_RATE:
        raise SettingsError(
            f"hyperparams.learning_rate {rate:g} would ruin a model of {parameters:,} parameters; "
            f"use at most {_HIGHEST_RATE:g}, and 1e-5 to 5e-5 for a pretrained one"
        )
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and config.hyperparams.max_length > context:
        raise SettingsError(
            f"hyperparams.max_length {config.hyperparams.max_length} exceeds the model's context of {context}"
        )


def _set_stop_tokens(model: Any, tokenizer: Tokenizer) -> None:
    """Set the stop tokens of training in the generation config, for servers that read it."""
    stops = list(stop_ids(tokenizer))
    model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
    if tokenizer.pad_token_id is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def quantization(hardware: Hardware) -> Any:
    """NF4 with double quantization (Dettmers et al., 2023), computed in the run's precision."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=hardware.compute_dtype,
    )


class Adapters:
    """Low-rank adapters (LoRA; Hu et al., 2021) in a model, through peft. The model itself stays usable as before."""

    def __init__(self, model: Any, settings: ModelSettings, seed: int, base: Path, name: str) -> None:
        """Freeze the model, loaded from the folder ``base``, and insert new adapters, which change nothing yet.

        ``name`` is the base model's name for readers of the saved adapters. Raises SettingsError for targets that the
        model does not have, or that share weights with another layer.
        """
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        self._settings = settings
        self._base = base
        self._name = name
        self.base_weights = weights_digest(base)
        config = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_scale,
            target_modules=list(settings.lora_targets) or "all-linear",
            task_type="CAUSAL_LM",
        )
        if settings.load_in_4bit:
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.gradient_checkpointing)
            model._hf_peft_config_loaded = True  # without this mark the Trainer refuses a quantized model
        try:
            with torch.random.fork_rng(), _without_peft_warnings():
                torch.manual_seed(seed % 2**63)
                self._peft = get_peft_model(model, config)
        except ValueError as error:
            raise SettingsError(f"model.lora_targets do not fit the model: {error}") from error
        _require_untied_targets(model)

    def load(self, folder: Path) -> None:
        """Set the adapters to those of a checkpoint of the same shape. Raises BrokenCheckpoint if they differ."""
        from peft import set_peft_model_state_dict

        try:
            found = set_peft_model_state_dict(self._peft, load_file(folder / ADAPTER))
        except (OSError, RuntimeError, KeyError, SafetensorError) as error:
            raise BrokenCheckpoint(f"{folder / ADAPTER} cannot be loaded: {error}") from error
        if found.unexpected_keys or any("lora_" in name for name in found.missing_keys):
            raise BrokenCheckpoint(f"{folder / ADAPTER} does not fit {self._base}.")

    def save(self, folder: Path, trained: Mapping[str, torch.Tensor]) -> None:
        """Write the adapters in peft's format, a reference to their base, and the base's configuration.

        ``trained`` are their weights by name in the model. Equal weights give equal bytes.
        """
        from peft import get_peft_model_state_dict

        named = {f"base_model.model.{name}": tensor for name, tensor in trained.items()}
        weights = get_peft_model_state_dict(self._peft, named, save_embedding_layers=False)
        save_file(weights, folder / ADAPTER, {"format": "pt"})
        config = self._peft.peft_config["default"].to_dict()
        config |= {"base_model_name_or_path": self._name, "inference_mode": True}
        text = json.dumps(config, indent=2, sort_keys=True, default=sorted)  # target_modules is a set
        (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
        scale = self._settings.lora_scale / self._settings.lora_rank
        BaseReference.to(self._base, self.base_weights, training_mode(self._settings), scale).write(folder)
        shutil.copyfile(self._base / CONFIG, folder / CONFIG)


def _require_untied_targets(model: Any) -> None:
    """Raise SettingsError for adapters on tied weights: merging would change both layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not model.all_tied_weights_keys:
        return
    ends = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    if adapted := [name for name, layer in ends.items() if isinstance(layer, BaseTunerLayer)]:
        raise SettingsError(
            f"model.lora_targets include the {' and the '.join(adapted)} of a model with tied embedding and head: "
            "merging the adapters for serving would change both. Remove it."
        )


def keep_weight_layout(model: Any) -> None:
    """Keep the layout of quantized weights. In evaluation mode bitsandbytes repacks them on some CPUs, and repacked
    weights pass no gradient, so that a single preview would break training."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """Suppress peft's warnings of a deprecated transformers property, and of tied weights, which are refused here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings(
            "ignore", "Model (has|with) `tie_word_embeddings=True`"
        )  # refused by _require_untied_targets
        yield


@torch.no_grad()
def add_tokens(model: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Make each text one token, in rows of the embedding that the vocabulary does not use.

    A new token starts as the mean of the tokens that it replaces. It is not special, so it stays in an answer's text.
    Returns False, and changes nothing, if there are too few rows or they are frozen. A second call changes nothing.
    """
    pieces = {text: tokenizer.encode(text, add_special_tokens=False) for text in texts}
    missing = [text for text in texts if len(pieces[text]) > 1]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    first = len(tokenizer)
    room = embedding.num_embeddings - first if embedding.weight.requires_grad else 0
    if len(missing) > room:
        return False
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in missing])
    for weight in {id(layer.weight): layer.weight for layer in (embedding, head)}.values():
        for row, text in enumerate(missing, first):
            weight[row] = weight[pieces[text]].mean(0)
    return True
