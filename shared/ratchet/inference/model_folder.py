"""A model's folder: checks that its files are complete, the digest of its weights, and the metadata in its files.

Nothing here imports torch or loads weights; that is in model_loading.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.settings.training import LockedSettings
from ratchet.user_files import open_regular

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
BASE = "base.json"
"""A checkpoint of adapters has these files in place of whole weights (see adapter_folder)."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
UNKNOWN = "unknown"


def check_folder(folder: Path) -> None:
    """Raise BrokenCheckpoint, naming the file, unless the folder is complete, undamaged and free of code."""
    if not folder.is_dir():
        raise BrokenCheckpoint(f"{folder} is not a folder.")
    if "auto_map" in read_json(folder / CONFIG):
        raise BrokenCheckpoint(f"{folder / CONFIG} needs remote code (auto_map), which is never run.")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise BrokenCheckpoint(f"{folder} has no tokenizer: one of {', '.join(TOKENIZERS)} is expected.")
    for file in weight_files(folder):
        check_safetensors(file)


def weight_files(folder: Path) -> list[Path]:
    """The model's safetensors files: one, or the shards that the index names; of adapters, their one file."""
    if (folder / BASE).exists():
        names = [ADAPTER]
    elif (folder / INDEX).exists():
        names = shard_names(folder)
    else:
        names = [SINGLE]
    for name in names:
        if not (folder / name).is_file():
            raise BrokenCheckpoint(f"{folder / name} is missing.")
    return [folder / name for name in names]


def shard_names(folder: Path) -> list[str]:
    """The files of the folder that its index names, in order; none without an index. Raises BrokenCheckpoint."""
    if not (folder / INDEX).exists():
        return []
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise BrokenCheckpoint(f"{folder / INDEX} has no weight_map: download the model again.")
    for name in shards.values():
        if not isinstance(name, str) or name != Path(name).name:
            raise BrokenCheckpoint(
                f"{folder / INDEX} names {name!r}, which is no file of this folder: download the model again."
            )
    return sorted(set(shards.values()))


def read_json(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        raise BrokenCheckpoint(f"{path} is missing.")
    try:
        with open_regular(path, BrokenCheckpoint) as file:
            value = json.loads(file.read().decode())
    except (ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BrokenCheckpoint(f"{path} is not a JSON object.")
    return value


def check_safetensors(path: Path) -> None:
    """Compare the length stated in the file's header with the file's size."""
    read_header(path)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: ``dtype``, ``shape`` and ``data_offsets`` of each tensor by its name.

    Layout: eight bytes with the header's length, the JSON header, the tensors' bytes at ``data_offsets``. Raises
    BrokenCheckpoint for a file that is not as long as its header says.
    """
    with open_regular(path, BrokenCheckpoint) as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if header_bytes + 8 > size:
            raise BrokenCheckpoint(f"{path} is truncated: its header does not fit into {size} bytes.")
        try:
            header: dict[str, Any] = json.loads(file.read(header_bytes))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            ends = [entry["data_offsets"][1] for entry in tensors.values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenCheckpoint(f"{path} has no readable safetensors header: {error}") from error
    expected = 8 + header_bytes + max(ends, default=0)
    if expected != size:
        raise BrokenCheckpoint(f"{path} has {size} bytes, but its header states {expected}.")
    return tensors


_DTYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F64": "fp32"}


def stored_dtype(folder: Path) -> str:
    """The precision of a model's files: bf16, fp16 or fp32, by the most bytes. Raises BrokenCheckpoint.

    Weights in another format (8 bits and fewer) count as bf16, to which they are expanded.
    """
    sizes: Counter[str] = Counter()
    for file in weight_files(folder):
        for tensor in read_header(file).values():
            first, end = tensor["data_offsets"]
            sizes[_DTYPES.get(tensor["dtype"], "bf16")] += end - first
    return max(sizes, key=lambda name: (sizes[name], name)) if sizes else "fp32"


def weights_digest(folder: Path) -> str:
    """Hex sha256 over the sorted lines ``<name> <sha256>\\n`` of the folder's ``*.safetensors`` files.

    Adapters have one more line, ``base <digest of the weights under them> <their factor>``. Raises BrokenCheckpoint if
    there is no weights file. Sub-folders (optimizer states) do not count.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BrokenCheckpoint(f"{folder} holds no *.safetensors file; only safetensors weights are read.")
    sums = {file.name: file_sha256(file) for file in files}
    if not (folder / BASE).exists():
        return digest_of_sums(sums)
    base = read_json(folder / BASE)
    return _digest({**sums, "base": f"{base.get('weights')} {base.get('scale')}"})


def digest_of_sums(sums: Mapping[str, str]) -> str:
    """The digest of whole weights from each file's sha256, by relative path; only ``*.safetensors`` files count."""
    return _digest({name: sha for name, sha in sums.items() if name.endswith(".safetensors") and "/" not in name})


def _digest(parts: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {parts[name]}\n" for name in sorted(parts))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes. Raises BrokenCheckpoint unless it is a regular file."""
    with open_regular(path, BrokenCheckpoint) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_old_keys(folder: Path) -> None:
    """Let transformers 4, and vLLM on it, read a folder that transformers 5 has written.

    Without the old keys for rotary embeddings in ``config.json`` they take the default base frequency, without an
    error; a model with different rotary embeddings by layer has no old form, and is left as it is. The tokenizer class
    of transformers 5 for a plain tokenizer.json has another name in transformers 4, which both know.
    """
    config = read_json(folder / CONFIG)
    sections = [config, *(value for value in config.values() if isinstance(value, dict) and "rope_parameters" in value)]
    if [section for section in sections if _with_old_rope(section)]:
        _write_json(folder / CONFIG, config)
    path = folder / "tokenizer_config.json"
    if path.is_file() and (tokenizer := read_json(path)).get("tokenizer_class") == "TokenizersBackend":
        _write_json(path, {**tokenizer, "tokenizer_class": "PreTrainedTokenizerFast"})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_old_rope(section: dict[str, Any]) -> bool:
    """Add the old keys to one section of a configuration; whether that changed it."""
    rope = section.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope or "rope_theta" in section:
        return False
    rest = {name: value for name, value in rope.items() if name != "rope_theta"}
    is_plain = rest.get("rope_type", "default") == "default" and set(rest) <= {"rope_type"}
    section |= {"rope_theta": rope["rope_theta"], "rope_scaling": None if is_plain else rest}
    return True


@dataclass(frozen=True)
class ModelInfo:
    """Facts from ``config.json`` and the tokenizer's files; None for those that are missing."""

    model_architecture: str
    max_context_length: int | None
    vocab_size: int | None
    """Rows of the embedding."""
    tokens: int | None
    """Size of the tokenizer's vocabulary, at most ``vocab_size``."""
    vocabulary: str
    """Hex sha256 of the tokens and their ids."""

    def recorded(self) -> dict[str, str]:
        """The values as stored in the ledger."""
        return {
            "model_architecture": self.model_architecture,
            "max_context_length": str(self.max_context_length or UNKNOWN),
            "vocab_size": str(self.vocab_size or UNKNOWN),
            "vocabulary": self.vocabulary,
        }


def read_model_info(folder: Path, tokenizer: Path | None = None) -> ModelInfo:
    """Read the info of a model, with the tokenizer of another folder if one is given. Raises BrokenCheckpoint."""
    config = read_json(folder / CONFIG)
    text: dict[str, Any] = config.get("text_config", config)
    tokens, vocabulary = _vocabulary(tokenizer or folder)
    return ModelInfo(
        model_architecture=",".join(config.get("architectures") or [UNKNOWN]),
        max_context_length=text.get("max_position_embeddings"),
        vocab_size=text.get("vocab_size"),
        tokens=tokens,
        vocabulary=vocabulary,
    )


def check_locked(locked: LockedSettings, info: ModelInfo, max_length: int, model: str) -> ModelInfo:
    """Compare a model with the locked settings; returns its info with the context length that training must respect.

    Raises SettingsError, naming both values and the way out.
    """
    for name in ("model_architecture", "vocab_size"):
        wanted, found = getattr(locked, name), getattr(info, name)
        if wanted is not None and wanted != found:
            raise SettingsError(
                f"locked.{name} is {wanted}, but {model} has {found} in its config.json. Use the intended model "
                f"(model.path), or set locked.{name} to {found}."
            )
    if info.tokens is not None and info.vocab_size is not None and info.tokens > info.vocab_size:
        raise SettingsError(
            f"the tokenizer has {info.tokens} tokens, but {model} has an embedding of {info.vocab_size}. Use the "
            "tokenizer that belongs to the model (model.tokenizer_path)."
        )
    own, wanted = info.max_context_length, locked.max_context_length
    if own is not None and wanted is not None and wanted > own:
        raise SettingsError(
            f"locked.max_context_length is {wanted}, but {model} has {own} in its config.json. Set it to {own} or less."
        )
    context = wanted or own
    if context is not None and max_length > context:
        raise SettingsError(
            f"hyperparams.max_length {max_length} exceeds the context length of {context}. Set it to {context} or less."
        )
    return ModelInfo(info.model_architecture, context, info.vocab_size, info.tokens, info.vocabulary)


def _vocabulary(folder: Path) -> tuple[int | None, str]:
    """The number of tokens (None if unknown), and a digest of them."""
    file = next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)
    if file is None:
        raise BrokenCheckpoint(f"{folder} has no tokenizer: one of {', '.join(TOKENIZERS)} is expected.")
    if file.suffix != ".json":
        return None, hashlib.sha256(file.read_bytes()).hexdigest()
    tree = read_json(file)
    known: Any = tree.get("model", {}).get("vocab", {}) if "model" in tree else tree
    pairs = known.items() if isinstance(known, dict) else ((entry[0], row) for row, entry in enumerate(known))
    table = {str(token): int(row) for token, row in pairs}
    table |= {str(added["content"]): int(added["id"]) for added in tree.get("added_tokens", ())}
    canonical = json.dumps(sorted(table.items()), ensure_ascii=True, separators=(",", ":"))
    return len(table), hashlib.sha256(canonical.encode()).hexdigest()
