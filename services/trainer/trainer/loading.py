"""The model and its tokenizer: safetensors only, no code from the folder. What is trained of it is held in fp32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.attention import fitting_attention
from ratchet.inference.chat import Tokenizer, stop_ids
from ratchet.inference.digest import weights_digest
from ratchet.inference.folder import check_folder
from ratchet.inference.loading import require_cache
from ratchet.profiles.profile import Profile
from ratchet.settings.training import TrainerConfig
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.adapters import Adapters, keep_layout, quantization
from trainer.by_row import BY_ROW, use_by_row
from trainer.hardware import Hardware
from trainer.vocabulary import add_tokens

transformers.utils.logging.disable_progress_bar()

_SMALL_MODEL = 10_000_000
_HIGHEST_RATE = 1e-3


@dataclass(frozen=True)
class Trainable:
    """A model that is ready to train: all of its weights, or the adapters in it."""

    model: Any
    tokenizer: Tokenizer
    adapters: Adapters | None = None
    base: str | None = None
    """Digest of the frozen weights under the adapters."""

    @property
    def attention(self) -> str:
        """The attention kernel."""
        return str(self.model.config._attn_implementation)

    @property
    def tells_rows_apart(self) -> bool:
        """Whether rows may lie end to end, each seeing itself alone."""
        return self.attention in ("flash_attention_2", BY_ROW)


def load_model(config: TrainerConfig, hardware: Hardware, profile: Profile) -> Trainable:
    """Model and tokenizer, from folders, with the profile's own tokens where the vocabulary has room to learn them.

    Raises BrokenCheckpoint, ChatTemplateError or SettingsError.
    """
    source = config.model.path
    check_folder(Path(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model.tokenizer_path or source, trust_remote_code=False)
        shape = AutoConfig.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.float32 if config.model.lora_rank == 0 else hardware.saved_dtype,
            attn_implementation=fitting_attention(shape, hardware.attention),
            use_safetensors=True,
            trust_remote_code=False,
            **_quantized(config, hardware),
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{source} cannot be loaded (model.path): {error}") from error
    require_cache(model)
    keep_layout(model)
    _check_fit(config, model, tokenizer)
    if config.model.attention == "auto" and not hardware.on_gpu:
        use_by_row(model, config.hyperparams.max_length)
    adapters = Adapters(model, config.model, config.data.seed, source) if config.model.lora_rank else None
    add_tokens(model, tokenizer, profile.tokens())
    _teach_to_stop(model, tokenizer)
    base = weights_digest(Path(source)) if adapters is not None else None
    return Trainable(model.train(), tokenizer, adapters, base)


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


def _teach_to_stop(model: Any, tokenizer: Tokenizer) -> None:
    """Every server that reads the checkpoint's generation config ends where training ends an answer."""
    stops = list(stop_ids(tokenizer))
    model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
    if tokenizer.pad_token_id is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
