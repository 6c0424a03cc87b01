"""A small home with users' tasks: rows as people have them, of which some are held out and the rest is to be stored."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ratchet.artifacts import ArtifactStore
from ratchet.evaluation.record import ItemRecord
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import TaskRow
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings
from ratchet.user_tasks.add import Choice, commit, prepare

from tests.support.home import SMALL, Home, made_up_answer, made_up_model, merged

DATA = Path(__file__).parents[1] / "data"
OWN: Mapping[str, Any] = {"suites": {"families": []}, "hyperparams": {"max_length": 1024, "batch_size": 2}}
"""Settings of a user who has rows and names no built-in family."""

Right = Callable[[str], bool]
"""Whether a made-up model answers the item with this key right."""


@contextmanager
def home_of_tasks(folder: Path, /, tasks: Mapping[str, Choice], **sections: Any) -> Iterator[Home]:
    """A home whose tasks come from these files of tests/data, added before the first run."""
    suites = {name: sections[name] for name in ("suites",) if name in sections}
    shutil.copytree(_template(tuple(tasks.items()), json.dumps(suites, sort_keys=True)), folder)
    settings = _settings(folder, sections)
    home = Home(settings, Ledger(settings.ledger_url), ArtifactStore(settings.artifact_url))
    try:
        yield home
    finally:
        home.ledger.close()


def _settings(folder: Path, sections: Mapping[str, Any]) -> Settings:
    return Settings(home=folder, **merged(merged(SMALL, OWN), sections))


@cache
def _template(tasks: tuple[tuple[str, Choice], ...], sections: str) -> Path:
    """Such a home to copy, made once a process: adding rows and the first run take longer than a test."""
    root = Path(tempfile.mkdtemp(prefix="ratchet-tasks-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    settings = _settings(root / "home", json.loads(sections))
    ledger, artifacts = Ledger(settings.ledger_url), ArtifactStore(settings.artifact_url)
    migrate(ledger)
    try:
        for name, choice in tasks:
            add_rows(Home(settings, ledger, artifacts), DATA / name, choice)
        bootstrap(settings, ledger, artifacts, lambda _settings, spec: made_up_model(spec))
    finally:
        ledger.close()
    return root / "home"


def add_rows(home: Home, file: Path, choice: Choice) -> str:
    """Add a file's rows to a task; returns the batch that is at the gate."""
    prepared = prepare(home.settings, home.ledger, home.artifacts, file, file.name, choice)
    assert prepared is not None, "the file has rows of no built-in family"
    batch = commit(home.settings, home.ledger, home.artifacts, prepared)
    assert batch is not None, "the file has rows to train on"
    return batch


def task_row(home: Home, name: str) -> TaskRow:
    with home.ledger.read() as session:
        return session.get_one(TaskRow, name)


def add_task_record(home: Home, checkpoint: str, is_right: Right, loss: float, pool: str = "probe") -> None:
    """A record in which some items are right, and each reference answer has the loss, within a little."""
    records = []
    for place, item in enumerate(home.suite_items(pool)):
        metric = item.metadata.get("metric", "accuracy")
        right = is_right(str(item.metadata["key"]))
        told = made_up_answer(item, right, 0.95).model_dump()
        told |= {"metric": metric, "gold_nll": loss + 0.001 * (place % 7)}
        told |= {"correct": right if metric == "accuracy" else None}
        records.append(ItemRecord.model_validate(told))
    home.store_record(checkpoint, pool, tuple(records))
