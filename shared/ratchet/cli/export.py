"""`ratchet export`: a checkpoint as a folder for other programs, or on the Hugging Face hub."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ratchet.cli.output import say
from ratchet.errors import PreconditionFailed
from ratchet.home import artifacts, opened
from ratchet.inference.tiny import TINY_MODEL
from ratchet.views.checkpoint_names import find_checkpoint, label
from ratchet.wording import size

EVERY_S = 5.0
LOG = "export.child.log"
_CHECKPOINT_ID = re.compile(r"c\d{4,}-[0-9a-f]{6}")


def export(
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must be absent or empty.")],
    checkpoint: Annotated[
        str, typer.Argument(help="Its number (7), the beginning of its id, champion, newest, previous or base.")
    ] = "champion",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the adapters (LoRA) alone, in peft's format.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Also upload the folder to a private repository of the hub.")
    ] = None,
    ollama: Annotated[bool, typer.Option("--ollama", help="Add a Modelfile for `ollama create`.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder: weights, tokenizer, chat template and a model card.

    The weights are those that were judged, in the precision of the base model, with adapters merged into them. The card
    has the base model, the data with their sources, and what was proved. transformers and vLLM load the folder; Ollama
    imports it, with --ollama, if it supports the architecture. The folder appears at once, when it is complete.
    """
    from ratchet.export import export_checkpoint as exports
    from ratchet.export.model_facts import read_facts

    if adapter and ollama:
        raise PreconditionFailed("--ollama needs whole weights: leave --adapter out.")
    if push is not None:
        exports.require_hub(push)
    with opened() as (settings, ledger), ledger.read() as session:
        row = find_checkpoint(session, checkpoint)
        if row.state != "saved":
            raise PreconditionFailed(f"{label(row)} is {row.state}: {row.reason or 'its files are not usable'}.")
        facts, artifact, name = read_facts(session, settings, row), row.artifact, label(row)
    done = exports.export_checkpoint(
        artifacts(settings),
        artifact,
        facts,
        to,
        exports.Wanted(adapter=adapter, ollama=ollama, replace=force),
        log_path=settings.log_folder / LOG,
        progress=_Progress(),
    )
    say(f"{name} ({facts.id}): {size(done.size_bytes)} in {done.folder}")
    if done.templated is not None:
        say(_about_modelfile(done.folder, templated=done.templated))
    if done.base is not None:
        say(_about_base(done.base))
    if push is not None:
        say(f"pushed to {exports.push(done.folder, push)}")


def _about_base(base: str) -> str:
    if base == TINY_MODEL or _CHECKPOINT_ID.fullmatch(base):
        name = "base" if base == TINY_MODEL else base
        return f"Their base is {base}, which only Ratchet has: `ratchet export {name} --to FOLDER` writes it."
    return f"Their base is {base}."


def _about_modelfile(folder: Path, *, templated: bool) -> str:
    text = f"Modelfile: `cd {folder} && ollama create NAME`, for an architecture that Ollama imports"
    if templated:
        return f"{text}."
    return f"{text}. Its chat template cannot be written in Ollama's language, so Ollama takes its own for this model."


class _Progress:
    """Prints a note of the child every few seconds."""

    def __init__(self) -> None:
        self._printed_at = time.monotonic()

    def __call__(self, message: dict[str, Any]) -> None:
        if time.monotonic() - self._printed_at >= EVERY_S:
            self._printed_at = time.monotonic()
            say(message["note"], err=True)
