"""`ratchet init`: writes a settings file for your own model and data, and checks that they fit."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ratchet.atomic_files import atomic_write
from ratchet.capacity import model_folder, save_room
from ratchet.cli.config import plugin_sections
from ratchet.cli.data import (
    GraderOption,
    MapOption,
    MetricOption,
    TaskName,
    add_rows,
    converted,
    ledger_of_home,
)
from ratchet.cli.output import say
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed, RatchetError
from ratchet.leases.gpus import list_gpus
from ratchet.run.model_report import inspect_model
from ratchet.settings import Settings, load
from ratchet.settings.settings import schema_with
from ratchet.settings.sources import FILE
from ratchet.training_memory import ModelFacts, model_facts, training_memory
from ratchet.training_plan import (
    SMALL_PARAMETERS,
    UNKNOWN_MODEL,
    RowFacts,
    TrainingChoice,
    choose_training,
    cpu_computes_bf16,
    row_facts,
    this_machine,
)
from ratchet.user_tasks.change import make_choice
from ratchet.views.view_model import thousands
from ratchet.wording import size

TINY = "tiny"
NOT_REPLACEABLE = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM)
"""A settings file that is itself a mount point, or is in another user's folder, can only be written in place."""
GPU_ITEMS = 1_000


def init(
    model: Annotated[
        str,
        typer.Option(help="Folder or hub name of the base model; `tiny` is the built-in one, trained from scratch."),
    ] = TINY,
    data: Annotated[
        str | None, typer.Option(help="Your data: a file, a folder of files, or a data set of the hub (hf:ORG/NAME).")
    ] = None,
    task: TaskName = None,
    metric: MetricOption = None,
    grader: GraderOption = None,
    columns: MapOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train all weights of a pretrained model, not low-rank adapters (LoRA).")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file, and allow a model that does not fit.")
    ] = False,
) -> None:
    """Write ratchet.toml: every setting with its meaning, for your model and your data.

    A model is checked against the memory of this machine, and its hyperparameters follow from its size and your rows.
    The rows become a task, as with `ratchet data add`: some are held out, and it is said what gain they can prove.
    """
    file = Path(FILE)
    if file.exists() and not force:
        raise PreconditionFailed(f"{file.resolve()} exists already; --force overwrites it.")
    choice = make_choice(task, metric, grader, None)
    with tempfile.TemporaryDirectory(prefix="ratchet-init-") as folder:
        rows = Path(folder) / "rows.jsonl"
        origin = converted(data, columns, rows) if data is not None else None
        chosen = {**_for_model(model, rows if data is not None else None, full=full, force=force), **_sizes()}
        is_new = not file.exists()
        _write(file, render(chosen, schema_with(plugin_sections())))
        written = load()
        if (base := model_folder(written)) is not None:
            say(f"disk: {save_room(written, model_facts(base))[1]}.")
        try:
            if origin is not None:
                with ledger_of_home() as (settings, ledger):
                    add_rows(settings, ledger, rows, origin, choice)
        except RatchetError:
            if is_new:
                file.unlink()
            raise
        say(f"wrote {file}.")
    if data is None and model != TINY:
        say("It has nothing to learn from yet: `ratchet data add FILE` adds your rows, now or at any time.")
    say("`make run` (or `ratchet run`) starts everything.")


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


def _for_model(name: str, rows: Path | None, *, full: bool, force: bool) -> Chosen:
    """The sections for a model of the user's: where it is, what of it is trained, and how."""
    if name == TINY:
        return {}
    folder = Path(name)
    if not folder.is_dir():
        say(f"{name} is not a folder here, so it is taken as a hub name; the first run downloads and checks it.")
        unseen = choose_training(UNKNOWN_MODEL, _row_facts(rows, folder), this_machine(), adapters=not full).sections()
        return {**unseen, "model": {"path": name, **unseen["model"]}}
    _inspect(folder)
    facts, found_rows = model_facts(folder), _row_facts(rows, folder)
    adapters = False if full else None
    alone = choose_training(facts, found_rows, this_machine(), adapters=adapters)
    chosen, sections, processes = alone, alone.sections(), 1
    cards = len(list_gpus())
    if not alone.fits and cards > 1:
        sharded = choose_training(facts, found_rows, this_machine(cards, sharded=True), adapters=adapters)
        if sharded.fits:
            say("that does not fit one card, so it is sharded over all of them (environment.parallelism fsdp).")
            chosen, processes = sharded, cards
            sections = {**sharded.sections(), "environment": {"parallelism": "fsdp"}}
    _tell(facts, chosen, processes)
    if not chosen.fits and not force:
        raise PreconditionFailed(
            f"{name} does not fit: training takes about {size(chosen.memory.total)} of {size(training_memory()[0])}. "
            "Take a smaller model or a larger machine, or train adapters (without --full); --force writes it anyway."
        )
    if facts.parameters > SMALL_PARAMETERS:
        sections["hyperparams"].pop("num_epochs", None)  # passes over the rows are composed by generation
        sections |= {} if cards else _for_cpu(facts)
    return {**sections, "model": {"path": str(folder.resolve()), **sections["model"]}}


CPU_SEARCH_ITEMS = 60
"""Questions of one search for weak items: on a CPU each takes a second of a model of 0.1 billion parameters."""


def _for_cpu(facts: ModelFacts) -> dict[str, dict[str, Any]]:
    """Settings that spare a CPU: answers in the model's own precision, 1.6 times as fast, and fewer of them."""
    own = facts.dtype == "bf16" and cpu_computes_bf16()
    return {"mining": {"search_items": CPU_SEARCH_ITEMS}, **({"inference": {"dtype": "bf16"}} if own else {})}


def _inspect(folder: Path) -> None:
    """Print what is changed when the model is taken in. Raises PreconditionFailed for one that cannot be."""
    found = inspect_model(folder)
    for note in found.notes:
        say(f"model: {note}")
    if found.refusals:
        raise PreconditionFailed(" ".join(found.refusals))


def _row_facts(rows: Path | None, folder: Path) -> RowFacts | None:
    if rows is None:
        return None
    return row_facts((row for _, row in read_examples(rows) if isinstance(row, Example)), folder)


def _tell(facts: ModelFacts, chosen: TrainingChoice, processes: int) -> None:
    """Print what is trained, and what memory that takes."""
    available, where = training_memory(processes)
    hyperparams = chosen.hyperparams
    what = f"adapters of rank {chosen.model.lora_rank} (LoRA)" if chosen.model.lora_rank else "all weights"
    step_rows = hyperparams.batch_size * hyperparams.gradient_accumulation
    say(
        f"model: {thousands(facts.parameters)} parameters in {facts.dtype}. Training {what} at a learning rate of "
        f"{hyperparams.learning_rate:g}, {step_rows} rows a step of up to {hyperparams.max_length} tokens, takes about "
        f"{size(chosen.memory.total)} of {size(available)} ({where})."
    )
    if chosen.rows_too_long:
        say(f"{chosen.rows_too_long:,} rows are longer than {hyperparams.max_length} tokens and are left out.")


def _sizes() -> Chosen:
    """Suites of 1,000 items where there is a GPU; the defaults suit a CPU."""
    return {"suites": {"probe_items": GPU_ITEMS, "eval_items": GPU_ITEMS}} if list_gpus() else {}


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
