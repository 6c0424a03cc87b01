"""Loading a model to train: from a folder or the hub, with adapters or quantized, onto its device.

It reads only safetensors and runs no code from the folder. Trained weights are in fp32. This module knows nothing of
rows or the training loop.
"""

from __future__ import annotations

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
from ratchet.inference.chat_template import Tokenizer, stop_ids
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.inference.model_loading import fitting_attention, require_cache
from ratchet.inference.tiny import resolve_model
from ratchet.profiles.profile import Profile
from ratchet.settings.training import ModelSettings, TrainerConfig
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.checkpoint import restore_master
from trainer.distributed import device_mesh, shard
from trainer.hardware import Hardware
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
    adapters: Adapters | None = None
    base_weights: str | None = None
    """Digest of the frozen weights under the adapters."""

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

    Raises BrokenCheckpoint for a name that is neither a folder nor a model on the hub (offline: in its local cache).
    """
    model = config.model
    found = {"path": local_folder(resolve_model(model.path, config.output.output_dir), "model.path")}
    if model.tokenizer_path is not None:
        found["tokenizer_path"] = local_folder(model.tokenizer_path, "model.tokenizer_path")
    return config.model_copy(update={"model": model.model_copy(update=found)})


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
    folder = config.model.path
    check_folder(Path(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model.tokenizer_path or folder, trust_remote_code=False)
        shape = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if config.model.lora_rank == 0 else hardware.saved_dtype,
            attn_implementation=fitting_attention(shape, hardware.attention),
            use_safetensors=True,
            trust_remote_code=False,
            **_quantized(config, hardware),
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{folder} cannot be loaded (model.path): {error}") from error
    require_cache(model)
    keep_weight_layout(model)
    _check_fit(config, model, tokenizer)
    if config.model.attention == "auto" and not hardware.on_gpu:
        use_varlen_attention(model, config.hyperparams.max_length)
    adapters = Adapters(model, config.model, config.data.seed, folder) if config.model.lora_rank else None
    add_tokens(model, tokenizer, profile.tokens())
    _set_stop_tokens(model, tokenizer)
    base_weights = weights_digest(Path(folder)) if adapters is not None else None
    return Trainable(model.train(), tokenizer, adapters, base_weights)


def _quantized(config: TrainerConfig, hardware: Hardware) -> dict[str, Any]:
    found = quantization(config.model, hardware)
    return {} if found is None else {"quantization_config": found, "device_map": {"": hardware.device}}


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


def quantization(model: ModelSettings, hardware: Hardware) -> Any:
    """NF4 with double quantization (Dettmers et al., 2023), computed in the run's precision; None if not quantized."""
    if not model.load_in_4bit:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=hardware.saved_dtype,
    )


class Adapters:
    """Low-rank adapters (LoRA; Hu et al., 2021) in a model, through peft. The model itself stays usable as before."""

    def __init__(self, model: Any, settings: ModelSettings, seed: int, base_path: str) -> None:
        """Freeze the model, loaded from ``base_path``, and insert new adapters, which change nothing yet.

        Raises SettingsError for targets that the model does not have, or that share weights with another layer.
        """
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        self._settings = settings
        self._base_path = base_path
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

    def save(self, folder: Path, trained: Mapping[str, torch.Tensor]) -> None:
        """Write the adapters in peft's format. ``trained`` are their weights by name in the model."""
        from peft import get_peft_model_state_dict

        folder.mkdir(parents=True, exist_ok=True)
        named = {f"base_model.model.{name}": tensor for name, tensor in trained.items()}
        weights = get_peft_model_state_dict(self._peft, named, save_embedding_layers=False)
        save_file(weights, folder / "adapter_model.safetensors")
        config = self._peft.peft_config["default"]
        before, config.base_model_name_or_path = config.base_model_name_or_path, None
        config.save_pretrained(str(folder))
        config.base_model_name_or_path = before

    def merged(self, hardware: Hardware, folder: Path) -> Any:
        """The model with the adapters merged into its weights. The adapters are removed from it.

        If the weights are quantized or sharded, the full ones are loaded again, and the adapters in ``folder`` merged.
        """
        if not self._settings.load_in_4bit and not hardware.sharded:
            return self._peft.merge_and_unload()
        return merge_into_full_precision(self._base_path, folder, hardware)


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


def merge_into_full_precision(base_path: str, adapters: Path, hardware: Hardware) -> Any:
    """Load the unquantized weights of ``base_path`` in main memory and merge saved adapters into them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(
        base_path, dtype=hardware.saved_dtype, use_safetensors=True, trust_remote_code=False
    )
    with _without_peft_warnings():
        return PeftModel.from_pretrained(whole, str(adapters)).merge_and_unload()


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
