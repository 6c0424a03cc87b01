"""What is to be known of a user's model before anything is set up on it: what stands in the way, and what is done about
the rest. It reads the files of a folder and needs neither torch nor transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import BrokenCheckpoint, RatchetError
from ratchet.inference.adapter_folder import ADAPTER_CONFIG, is_adapter
from ratchet.inference.model_folder import (
    CONFIG,
    INDEX,
    SINGLE,
    TOKENIZERS,
    check_safetensors,
    read_json,
    shard_names,
)
from ratchet.printable import printable
from ratchet.user_files import open_regular, read_text

TEMPLATE = "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

_SAMPLING = frozenset(("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"))
"""Fields of a generation config that mean nothing without ``do_sample``, and then prevent it from being saved."""

_MEDIA = ("vision_config", "audio_config", "speech_config")
_CONVERT = "AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) of transformers writes safetensors"


@dataclass(frozen=True)
class ModelReport:
    """Sentences on a model's folder: ``refusals`` name the way out, ``notes`` what Ratchet does or what to consider."""

    refusals: tuple[str, ...]
    notes: tuple[str, ...]


def inspect_model(folder: Path, tokenizer: Path | None = None, template: Path | None = None) -> ModelReport:
    """Look through a folder as a base model.

    ``tokenizer`` is the folder of ``model.tokenizer_path`` and ``template`` the file of ``model.chat_template``, where
    they are set.
    """
    try:
        if not folder.is_dir():
            return ModelReport((f"{printable(folder)} is not a folder.",), ())
    except PermissionError:
        return ModelReport((f"{printable(folder)}: this user may not read it: give them permission.",), ())
    words = tokenizer or folder
    refusals: list[str] = []
    notes: list[str] = []
    for found, sentences in (
        (refusals, _weights(folder)),
        (refusals, _configuration(folder)),
        (refusals, _tokenizer(words)),
        (refusals, _template(words, template)),
        (notes, _notes(folder, words, template)),
    ):
        try:
            found += sentences
        except RatchetError as error:  # a file that cannot be read, or is no JSON
            refusals.append(str(error))
    return ModelReport(tuple(dict.fromkeys(refusals)), tuple(notes))


def weights_to_copy(folder: Path) -> list[Path]:
    """The weight files that transformers would load: the single one, or the shards of the index."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    return [folder / name for name in shard_names(folder)]


def chat_template_text(folder: Path, template: Path | None = None) -> str | None:
    """The chat template in force, or None. Raises SettingsError or BrokenCheckpoint for an unreadable file."""
    if template is not None:
        return read_text(template, BrokenCheckpoint)
    if (folder / TEMPLATE).exists():
        return read_text(folder / TEMPLATE, BrokenCheckpoint)
    for name in ("chat_template.json", TOKENIZER_CONFIG):
        if (folder / name).exists() and (found := read_json(folder / name).get("chat_template")):
            return found if isinstance(found, str) else json.dumps(found)
    return None


def clean_generation_config(folder: Path) -> str | None:
    """Remove what prevents ``generation_config.json`` from being saved with a checkpoint; returns what was removed."""
    path = folder / GENERATION_CONFIG
    if not path.exists():
        return None
    config = read_json(path)
    useless = _without_effect(config)
    if not useless:
        return None
    kept = {name: value for name, value in config.items() if name not in useless}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return _removed(useless)


def _weights(folder: Path) -> Iterator[str]:
    place = printable(folder)
    if is_adapter(folder):  # Ratchet's own, which are merged into the base that they name
        return
    if (folder / ADAPTER_CONFIG).exists():
        yield (
            f"{place} has adapters ({ADAPTER_CONFIG}): merge them into their base model first (merge_and_unload of "
            "peft), or remove that file if the weights beside it are whole."
        )
    listed = shard_names(folder)
    files = weights_to_copy(folder)
    missing = [file for file in files if not file.exists()]
    if (folder / SINGLE).exists() and listed not in ([], [SINGLE]):
        gone = [name for name in listed if not (folder / name).exists()]
        why = f"{gone[0]} is missing, which it names" if gone else "there are two sets of weights"
        yield f"{place} has {SINGLE} beside {INDEX}, and {why}: remove the one that does not belong to the model."
    elif missing:
        yield f"{missing[0]} is missing, which {INDEX} names: download the model again."
    elif listed and not (folder / SINGLE).exists() and not isinstance(read_json(folder / INDEX).get("metadata"), dict):
        yield f'{folder / INDEX} has no metadata, without which it is not loaded: add "metadata": {{}} to it.'
    elif not files and not (folder / ADAPTER_CONFIG).exists():
        yield _other_weights(folder)
    for file in files:
        if file.exists():
            check_safetensors(file)


def _other_weights(folder: Path) -> str:
    place = printable(folder)
    if found := sorted(folder.glob("*.gguf")):
        return (
            f"{place} has its weights as GGUF ({found[0].name}), which are for inference: use the model's original "
            f"folder, or convert it ({_CONVERT}, with gguf_file={found[0].name!r})."
        )
    if found := sorted((*folder.glob("*.bin"), *folder.glob("*.pth"), *folder.glob("*.pt"))):
        return (
            f"{place} has its weights in {found[0].name}, a pickle, which can run code and is never opened: convert it "
            f"({_CONVERT}) where you trust its source."
        )
    return f"{place} has no weights: {SINGLE}, or {INDEX} with its shards, is expected."


def _configuration(folder: Path) -> Iterator[str]:
    path = folder / CONFIG
    config = read_json(path)
    names = [str(name) for name in config.get("architectures") or ()]
    named = ", ".join(names) or str(config.get("model_type"))
    if "auto_map" in config:
        yield f"{path} needs remote code (auto_map), which is never run: use a model that transformers knows by itself."
    if config.get("is_encoder_decoder"):
        yield f"{path} names {named}, an encoder-decoder: only decoders can be trained, such as Qwen3ForCausalLM."
    elif media := next((name for name in _MEDIA if name in config), None):
        yield (
            f"{path} names {named}, which takes images or sound ({media}): only models of text alone can be trained; "
            "many families have one."
        )
    elif names and not any("CausalLM" in name or "LMHead" in name for name in names):
        yield f"{path} names {named}, which writes no text: only …ForCausalLM models can be trained."
    if isinstance(found := config.get("quantization_config"), dict):
        yield (
            f"{path} says that the weights are quantized ({found.get('quant_method', 'quantization_config')}): use the "
            "original weights; model.load_in_4bit quantizes them while training."
        )


def _tokenizer(folder: Path) -> Iterator[str]:
    if not any((folder / name).exists() for name in TOKENIZERS):
        yield f"{printable(folder)} has no tokenizer: {TOKENIZERS[0]} is expected, or model.tokenizer_path."
    for name in (*TOKENIZERS, TOKENIZER_CONFIG, GENERATION_CONFIG):
        if (folder / name).exists():
            open_regular(folder / name, BrokenCheckpoint).close()
    if (folder / GENERATION_CONFIG).exists():
        read_json(folder / GENERATION_CONFIG)


def _template(folder: Path, template: Path | None) -> Iterator[str]:
    if chat_template_text(folder, template) is None:
        yield (
            f"{printable(folder)} has no chat template, as models have that were not tuned for chat: set "
            "model.chat_template to a Jinja file, such as the one in docs/profiles.md."
        )


def _notes(folder: Path, tokenizer: Path, chosen: Path | None) -> Iterator[str]:
    template = chat_template_text(tokenizer, chosen) or ""
    used = {file.name for file in weights_to_copy(folder)}
    others = sorted(file.name for file in folder.glob("*.safetensors") if file.name not in used)
    if used and others:
        yield f"{others[0]} is a second set of weights, which is not used and not copied."
    if (folder / GENERATION_CONFIG).exists() and (useless := _without_effect(read_json(folder / GENERATION_CONFIG))):
        yield _removed(useless)
    if "enable_thinking" in template:
        yield (
            "the chat template can switch reasoning off: if your rows have none, set profile.template_variables to "
            "{ enable_thinking = false }, so that answers are asked for as they are trained."
        )
    if "strftime_now" in template:
        yield "the chat template names the date, which stays that of the first run, so that prompts do not change."


def _without_effect(config: dict[str, Any]) -> list[str]:
    if config.get("do_sample") is True:
        return []
    return sorted(name for name in config if name in _SAMPLING and config[name] is not None)


def _removed(fields: list[str]) -> str:
    return (
        f"{GENERATION_CONFIG} sets {', '.join(fields)} without do_sample, which has no effect: removed from the copy."
    )
