"""Low-rank adapters (LoRA; Hu et al., 2021) on frozen weights, by peft: put in, saved, and merged for serving."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ratchet.errors import SettingsError
from ratchet.settings.training import ModelSettings
from safetensors.torch import save_file

from trainer.hardware import Hardware

ADAPTER_FOLDER = "adapter"
"""Where a checkpoint keeps its adapters, in peft's own format, beside the merged weights."""


def quantization(model: ModelSettings, hardware: Hardware) -> Any:
    """NF4 with double quantization (Dettmers et al., 2023), computed in the run's precision; None for whole weights."""
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
    """The adapters in a model. The model itself stays what it was: forward, names and generation do not change."""

    def __init__(self, model: Any, settings: ModelSettings, seed: int, source: str) -> None:
        """Freeze the model and put fresh adapters into it, which change nothing yet. ``source`` is where it came from.

        Raises SettingsError for targets that the model does not have, or of which it has only half.
        """
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        self._settings = settings
        self._source = source
        config = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_scale,
            lora_dropout=settings.lora_dropout,
            target_modules=list(settings.lora_targets) or "all-linear",
            task_type="CAUSAL_LM",
        )
        if settings.load_in_4bit:
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.gradient_checkpointing)
            model._hf_peft_config_loaded = True  # the Trainer refuses quantized weights that nothing can learn on
        try:
            with torch.random.fork_rng(), _warnings_of_peft_ignored():
                torch.manual_seed(seed % 2**63)
                self._peft = get_peft_model(model, config)
        except ValueError as error:
            raise SettingsError(f"model.lora_targets do not fit the model: {error}") from error
        _require_whole_targets(model)

    def save(self, folder: Path, trained: Mapping[str, torch.Tensor]) -> None:
        """Write the adapters, ``trained`` by their names in the model, as peft and inference servers read them."""
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
        """The model with the adapters added to its weights; the adapters are used up.

        Weights that are quantized, or shared among processes, are read again, whole, and the saved adapters of
        ``folder`` are added to those.
        """
        if not self._settings.load_in_4bit and not hardware.sharded:
            return self._peft.merge_and_unload()
        return merge_into_whole(self._source, folder, hardware)


def _require_whole_targets(model: Any) -> None:
    """Raise SettingsError for adapters on weights that two layers share: merged, they would change both of them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not model.all_tied_weights_keys:
        return
    ends = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    if adapted := [name for name, layer in ends.items() if isinstance(layer, BaseTunerLayer)]:
        raise SettingsError(
            f"model.lora_targets name the {' and the '.join(adapted)} of a model whose embedding and head are one: "
            "merged for serving, the adapters would change both. Leave it out."
        )


def merge_into_whole(source: str, adapters: Path, hardware: Hardware) -> Any:
    """The unquantized weights of ``source``, in main memory, with saved adapters added."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(
        source, dtype=hardware.saved_dtype, use_safetensors=True, trust_remote_code=False
    )
    with _warnings_of_peft_ignored():
        return PeftModel.from_pretrained(whole, str(adapters)).merge_and_unload()


def keep_layout(model: Any) -> None:
    """Let quantized weights lie as they are. Some CPUs answer from weights that they pack anew, and through those comes
    no gradient: one preview, or any other look at the model, would end its training."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def _warnings_of_peft_ignored() -> Iterator[None]:
    """It reads a property of transformers that has a new name, and warns of what is refused here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings(
            "ignore", "Model (has|with) `tie_word_embeddings=True`"
        )  # refused by _require_whole_targets
        yield
