"""Exports a checkpoint to a folder: all of it appears at once, complete, or nothing changes. And pushes it to the hub.

The heavy work is done in a child process (see write_folder); this module imports no torch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ratchet.artifacts import ArtifactStore
from ratchet.disk import home_errors, require_room
from ratchet.errors import PreconditionFailed
from ratchet.export.model_card import model_card
from ratchet.export.model_facts import CheckpointFacts
from ratchet.export.write_folder import TARGET, ExportSpec
from ratchet.gate.verdict_text import write_verdict
from ratchet.inference.adapter_folder import ADAPTER_CONFIG, base_name, is_adapter, whole_base
from ratchet.inference.model_folder import CONFIG, weight_files
from ratchet.lines import first_line
from ratchet.processes.child_runner import ChildRunner

CARD = "README.md"
OTHER_BYTES = 50_000_000
"""Room for tokenizer and configuration."""

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Wanted:
    """What is exported besides the weights, or in place of them. ``replace``: an earlier export may be replaced."""

    adapter: bool = False
    ollama: bool = False
    replace: bool = False


@dataclass(frozen=True)
class Exported:
    """``templated`` says whether the Modelfile has the chat template; None without a Modelfile.

    ``base`` is the name of the base of adapters, or the id of the checkpoint that they belong on.
    """

    folder: Path
    size_bytes: int
    templated: bool | None
    base: str | None


def export_checkpoint(
    artifacts: ArtifactStore,
    artifact: str,
    facts: CheckpointFacts,
    folder: Path,
    wanted: Wanted,
    *,
    log_path: Path,
    progress: Progress,
) -> Exported:
    """Write the checkpoint's folder. Raises PreconditionFailed for a folder that is not free, TransientError for a full
    disk, ArtifactError for a damaged checkpoint."""
    folder = folder.absolute()
    _require_free(folder, replace=wanted.replace)
    source = artifacts.fetch(artifact)
    if wanted.adapter and not is_adapter(source):
        raise PreconditionFailed(f"{facts.id} has no adapters: all of its weights were trained. Leave --adapter out.")
    base = base_name(source) if wanted.adapter else None
    needed = sum(file.stat().st_size for file in weight_files(source if wanted.adapter else whole_base(source)))
    require_room(folder.parent, needed + OTHER_BYTES, "the export")
    with _replacing(folder) as draft, ChildRunner() as children:
        spec = ExportSpec(
            checkpoint=source, weights=facts.weights, folder=draft, adapter=wanted.adapter, ollama=wanted.ollama
        )
        done = children.run(TARGET, spec.model_dump(mode="json"), on_progress=progress, log_path=log_path)
        told = facts if base is None else replace(facts, base=base)
        (draft / CARD).write_text(model_card(told, adapter=wanted.adapter), encoding="utf-8")
        if facts.verdict is not None:
            write_verdict(facts.verdict, draft)
        for file in draft.iterdir():
            file.chmod(0o644)  # transformers writes weights that others cannot read
        size_bytes = sum(file.stat().st_size for file in draft.iterdir())
    return Exported(folder, size_bytes, done["templated"], base)


def _require_free(folder: Path, *, replace: bool) -> None:
    """Raise PreconditionFailed unless the folder is absent, empty, or an earlier export that may be replaced."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise PreconditionFailed(f"{folder} is no folder: name another place (--to).")
    content = list(folder.iterdir())
    if not content:
        return
    if not replace:
        raise PreconditionFailed(f"{folder} is not empty: name another folder (--to), or replace it with --force.")
    names = {entry.name for entry in content}
    if any(entry.is_dir() for entry in content) or not names & {CONFIG, ADAPTER_CONFIG}:
        raise PreconditionFailed(f"{folder} holds other things than an export, so it is not replaced: empty it first.")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield a draft folder beside ``folder``, which takes its place if the block succeeds."""
    with home_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        draft = scratch / "new"
        draft.mkdir()
        yield draft
        with home_errors(folder.parent):
            if folder.exists():
                folder.rename(scratch / "old")
            draft.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_hub(name: str) -> None:
    """Raise PreconditionFailed unless something can be pushed to this name: a token is known and the hub is allowed."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise PreconditionFailed(f"--push {name}: {error}") from error
    if constants.HF_HUB_OFFLINE:
        raise PreconditionFailed("--push needs the hub, and HF_HUB_OFFLINE is set: unset it, or leave --push out.")
    if get_token() is None:
        raise PreconditionFailed("--push needs a token of the hub: set HF_TOKEN, or run `hf auth login`.")


def push(folder: Path, name: str) -> str:
    """Upload the folder to a private repository of the hub, created if it is missing; returns its address.

    Raises PreconditionFailed, which names the command to try again with.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # That of the HTTP library which this version of the hub's client uses.
    http_error: type[Exception] = next(base for base in HfHubHTTPError.__mro__[1:] if issubclass(base, Exception))
    try:
        api = HfApi()
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder))
    except (http_error, OSError, ValueError) as error:
        first = first_line(str(error).strip()) or type(error).__name__
        raise PreconditionFailed(
            f"{folder} is complete, but was not pushed to {name}: {first} Try `hf upload {name} {folder}` later."
        ) from error
    return str(address)
