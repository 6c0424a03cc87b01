"""Writes the files of an export, in a child process: merging and tokenizers need torch and transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ratchet.artifacts.manifest import MANIFEST_NAME
from ratchet.disk import disk_errors
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.adapter_folder import ADAPTER_CONFIG, is_adapter
from ratchet.inference.model_folder import ADAPTER, BASE, add_old_keys, weights_digest

Progress = Callable[[dict[str, Any]], None]

TARGET = "ratchet.export.write_folder:write_folder"
MODELFILE = "Modelfile"
_CHUNK_BYTES = 16 << 20


class ExportSpec(BaseModel):
    """``checkpoint`` is the folder of a checkpoint with this weights digest, ``folder`` the empty one to write to.

    ``adapter``: the adapters alone, not merged into their base. ``ollama``: with a Modelfile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    weights: str
    folder: Path
    adapter: bool = False
    ollama: bool = False


def write_folder(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Write the folder of an ExportSpec; returns whether the Modelfile has a template (None without a Modelfile)."""
    order = ExportSpec.model_validate(spec)
    found = weights_digest(order.checkpoint)
    if found != order.weights:
        raise BrokenCheckpoint(f"{order.checkpoint} holds weights {found[:12]}…, not {order.weights[:12]}….")
    with disk_errors(order.folder):
        if is_adapter(order.checkpoint) and not order.adapter:
            progress({"note": "merging the adapters into their base"})
            from ratchet.inference.model_loading import write_merged

            write_merged(order.checkpoint, order.folder)
        else:
            _copy(order, progress)
        templated = _write_modelfile(order.folder) if order.ollama else None
    return {"templated": templated}


def _copy(order: ExportSpec, progress: Progress) -> None:
    """Copy the checkpoint's own files, without sub-folders and without what only Ratchet reads."""
    files = list(_exported(order.checkpoint, adapter=order.adapter))
    total, done = sum(file.stat().st_size for file in files), 0
    for file in files:
        with file.open("rb") as source, (order.folder / file.name).open("wb") as copy:
            while chunk := source.read(_CHUNK_BYTES):
                copy.write(chunk)
                done += len(chunk)
                progress({"note": f"copied {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"})
    add_old_keys(order.folder)
    if not order.adapter and weights_digest(order.folder) != order.weights:
        raise BrokenCheckpoint(f"the copy of {order.checkpoint} differs from it: check the disk of {order.folder}.")


def _exported(checkpoint: Path, *, adapter: bool) -> Iterator[Path]:
    skipped = {MANIFEST_NAME, BASE} | (set() if adapter else {ADAPTER, ADAPTER_CONFIG})
    for file in sorted(checkpoint.iterdir()):
        if file.is_file() and file.name not in skipped:
            yield file


def _write_modelfile(folder: Path) -> bool:
    from transformers import AutoTokenizer

    from ratchet.export.ollama import Chat, modelfile, turn_texts

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def render(chat: Chat) -> str:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    adds_first = tokenizer.bos_token_id is not None and tokenizer.encode("a")[0] == tokenizer.bos_token_id
    texts = turn_texts(render, str(tokenizer.bos_token) if adds_first else "")
    (folder / MODELFILE).write_text(modelfile(texts, _stops(folder, tokenizer)), encoding="utf-8")
    return texts is not None


def _stops(folder: Path, tokenizer: Any) -> list[str]:
    """The texts of the tokens on which generation ends."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:
        found = None
    ids = [tokenizer.eos_token_id] if found is None else found if isinstance(found, list) else [found]
    return [str(tokenizer.convert_ids_to_tokens(id)) for id in ids if id is not None]
