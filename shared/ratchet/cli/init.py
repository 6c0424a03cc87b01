"""`ratchet init`: writes a settings file for your own model and data, and checks that they fit."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ratchet.atomic_files import atomic_replace, atomic_write
from ratchet.cli.capacity import Fit, count_parameters, fit, shared_fit, training_memory
from ratchet.cli.config import plugin_sections
from ratchet.cli.output import size
from ratchet.cli.view.view_model import thousands
from ratchet.data.jsonl import copy_rows, read_examples
from ratchet.disk import home_errors
from ratchet.errors import DataError, PreconditionFailed
from ratchet.evaluation.build_suites import build_suites
from ratchet.leases.gpus import list_gpus
from ratchet.settings import Settings, load
from ratchet.settings.settings import schema_with
from ratchet.settings.sources import FILE
from ratchet.user_files import open_regular, printable

TINY = "tiny"
NOT_REPLACEABLE = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM)
"""A settings file that is itself a mount point, or is in another user's folder, can only be written in place."""
SHOWN = 5
GPU_ITEMS = 1_000
LARGE = 5_000_000
"""Parameters from which a model counts as pretrained and gets settings of its own."""


def init(
    model: Annotated[
        str,
        typer.Option(help="Folder or hub name of the base model; `tiny` is the built-in one, trained from scratch."),
    ] = TINY,
    data: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, readable=True, help="JSONL file to train on.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file, and allow a model that does not fit.")
    ] = False,
) -> None:
    """Write ratchet.toml: every setting with its meaning, for your model and your data.

    A model is checked against the memory of this machine. A data file has one JSON object per line, in any of these
    shapes: messages, conversations, user_prompt/expected_answer, user_prompt/assistant_response, prompt/completion,
    instruction/input/output, question/answer; unreadable rows are listed with their line numbers. The file is copied
    into the inbox, which the first run queues. Part of its rows are held out for testing, so leave the file in place.
    """
    file = Path(FILE)
    if file.exists() and not force:
        raise PreconditionFailed(f"{file.resolve()} exists already; --force overwrites it.")
    chosen = {**_for_model(model, force), **_sizes()}
    if data is not None:
        _require_nameable(data)
        _check_data(data)
        chosen = {**chosen, "suites": {**chosen.get("suites", {}), **_tested_on(data, model)}}
    _write(file, render(chosen, schema_with(plugin_sections())))
    load()
    typer.echo(f"wrote {file}.")
    if data is not None:
        _into_inbox(data)
    typer.echo("`make run` (or `ratchet run`) starts everything.")


def _write(file: Path, text: str) -> None:
    """Write the file atomically. It keeps its permissions, and a link stays a link."""
    try:
        file = file.resolve()
    except RuntimeError as error:
        raise PreconditionFailed(f"{file}: a symbolic link that loops; remove it first.") from error
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    with home_errors(file.parent):
        try:
            atomic_write(file, text, mode=mode)
        except OSError as error:
            if error.errno not in NOT_REPLACEABLE or not file.exists():
                raise
            file.write_text(text, encoding="utf-8")


def _for_model(name: str, force: bool) -> Chosen:
    if name == TINY:
        return {}
    folder = Path(name)
    if not folder.is_dir():
        typer.echo(f"{name} is not a folder here, so it is taken as a hub name; the first run downloads and checks it.")
        return {"model": {"path": name}, "hyperparams": _pretrained()}
    alone = fit(count_parameters(folder), *training_memory())
    shared = None if alone.fits else shared_fit(load(), folder)
    found = shared or alone
    _tell(found)
    if not found.fits and not force:
        raise PreconditionFailed(
            f"{name} does not fit: take a smaller model or a larger machine. Training it needs about "
            f"{size(found.needed_bytes)}, and {size(found.available_bytes)} are available; --force writes it anyway."
        )
    chosen: dict[str, dict[str, Any]] = {"model": {"path": str(folder.resolve())}}
    if found.parameters > LARGE:
        chosen["hyperparams"] = _pretrained()
    if shared is not None:
        typer.echo("that does not fit one card, so it is sharded over all of them (environment.parallelism fsdp).")
        chosen["environment"] = {"parallelism": "fsdp"}
    return chosen


def _sizes() -> Chosen:
    """Suites of 1,000 items where there is a GPU; the defaults suit a CPU."""
    return {"suites": {"probe_items": GPU_ITEMS, "eval_items": GPU_ITEMS}} if list_gpus() else {}


def _tell(found: Fit) -> None:
    typer.echo(
        f"{thousands(found.parameters)} parameters: training all of them takes about {size(found.needed_bytes)} "
        f"of {size(found.available_bytes)} ({found.where})."
    )


def _pretrained() -> dict[str, Any]:
    """Careful settings for a pretrained model: a low learning rate, and small batches with gradient accumulation."""
    return {"learning_rate": 2e-5, "batch_size": 4, "gradient_accumulation": 8}


def _require_nameable(data: Path) -> None:
    """Raise for a file name that a settings file, which is UTF-8, cannot hold."""
    path = data.resolve()
    if printable(path) != str(path):
        raise PreconditionFailed(
            f"{printable(path)}: the name has control characters or is not UTF-8; rename the file first."
        )


def _check_data(data: Path) -> None:
    families: Counter[str] = Counter()
    errors: list[DataError] = []
    for _, found in read_examples(data):
        if isinstance(found, DataError):
            errors.append(found)
        else:
            families[str(found.family)] += 1
    for error in errors[:SHOWN]:
        typer.echo(f"  {error}", err=True)
    if not families:
        raise PreconditionFailed(f"{printable(data)} has no readable row.")
    counted = ", ".join(f"{count:,} {family}" for family, count in families.most_common(SHOWN))
    typer.echo(f"{printable(data)}: {sum(families.values()):,} readable rows ({counted}), {len(errors):,} unreadable.")


def _tested_on(data: Path, model: str) -> dict[str, Any]:
    """Suites from the file's held-out rows, if it has enough. A user's own model is then trained on nothing else."""
    alone = load().suites.model_copy(update={"families": (), "files": (data,)})
    try:
        suites = build_suites(alone)
    except DataError as error:
        typer.echo(f"{error} So the built-in tasks are tested, and none of this file's rows.")
        return {}
    sizes = " + ".join(f"{len(suite.items)} {pool}" for pool, suite in suites.items())
    typer.echo(f"held out for testing: {sizes} rows; `ratchet config check` shows what gain they can prove.")
    files = [str(data.resolve())]
    return {"files": files} if model == TINY else {"files": files, "families": []}


def _into_inbox(data: Path) -> None:
    inbox = load().inbox
    name = printable(data.with_suffix(".jsonl").name)
    with (
        home_errors(inbox),
        atomic_replace(inbox / name) as draft,
        open_regular(data) as rows,
        open(draft, "wb") as copy,
    ):
        copy_rows(rows, copy)
    typer.echo(f"copied {name} to {inbox}; the first run queues it.")


HEAD = """\
# Settings of Ratchet. A line that begins with # shows a default: remove the # to change it.
# The command line (--set queue.low_water=500) and the environment (RATCHET_QUEUE__LOW_WATER=500) override this file.
# `ratchet config check` checks it, `ratchet config show` shows what is in force.
"""
WIDTH = 110

Chosen = Mapping[str, Mapping[str, Any]]


def render(chosen: Chosen, schema: type[Settings] = Settings) -> str:
    """The text of the file, with these values (by section and field) set."""
    lines = [HEAD]
    plain, sections = _split(schema.model_fields)
    for name, field in plain.items():
        lines += _entry(name, field, {})
    for name, section in sections.items():
        lines += ["", *_wrapped(section.__doc__ or ""), f"[{name}]"]
        for field_name, field in section.model_fields.items():
            lines += _entry(field_name, field, chosen.get(name, {}))
    return "\n".join(lines) + "\n"


def _split(fields: Mapping[str, FieldInfo]) -> tuple[dict[str, FieldInfo], dict[str, type[BaseModel]]]:
    plain, sections = {}, {}
    for name, field in fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections[name] = kind
        else:
            plain[name] = field
    return plain, sections


def _entry(name: str, field: FieldInfo, chosen: Mapping[str, Any]) -> list[str]:
    lines = list(_wrapped(field.description or ""))
    if name in chosen:
        return [*lines, f"{name} = {toml(chosen[name])}"]
    default = field.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined or isinstance(default, SecretStr):
        return [*lines, f"# {name} ="]
    return [*lines, f"# {name} = {toml(default)}"]


def _wrapped(text: str) -> Iterator[str]:
    """Comment lines with the first paragraph of a docstring."""
    line = "#"
    for word in text.strip().split("\n\n")[0].split():
        if len(line) + len(word) >= WIDTH:
            yield line
            line = "#"
        line += f" {word}"
    if line != "#":
        yield line


def toml(value: Any) -> str:
    """A value as TOML: strings, numbers, booleans and lists are written as JSON, tables inline."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items() if inner is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(inner) for inner in value) + "]"
    if isinstance(value, Path | Enum):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)
