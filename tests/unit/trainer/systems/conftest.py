"""A home with a real tiny base model, and children that train in this process and can be made to die."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import ChildFailed
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import BatchRow, CheckpointRow, LineageRow
from ratchet.run.base_model import prepare_base_model
from safetensors.torch import load_file, save_file
from trainer.segment import SegmentSpec
from trainer.systems.training import SYSTEM as TRAINING

from tests.support.bus import InlineChildren
from tests.support.examples import sums
from tests.support.home import Home, small_home

ROWS = 64
STEP_ROWS = 8
SEGMENT_STEPS = 4


@dataclass
class Children(InlineChildren):
    """``specs`` are those of all segments begun. ``dies_at`` is the number of a segment that is killed when it is done.

    ``poison`` names a batch on which any model has NaN for a loss. A segment that is to stop is asked to by SIGTERM, as
    a child is.
    """

    scratch: Path
    specs: list[SegmentSpec] = field(default_factory=list)
    dies_at: int | None = None
    poison: str | None = None

    def run(
        self, target: str, spec: dict[str, Any], *, on_progress: Callable[[dict[str, Any]], None], **limits: Any
    ) -> dict[str, Any]:
        decoded = SegmentSpec.decode(spec)
        self.specs.append(decoded)
        if self.poison is not None and self.poison in str(decoded.config.data.dataset_path):
            spec["config"]["model"]["path"] = str(self._ruined(Path(decoded.config.model.path)))
            spec["config"]["output"]["resume_from"] = None

        def told(message: dict[str, Any]) -> None:
            on_progress(message)
            if limits["should_stop"]():
                os.kill(os.getpid(), signal.SIGTERM)

        result = super().run(target, spec, on_progress=told, **limits)
        if len(self.specs) == self.dies_at:
            raise ChildFailed("the child was killed by signal 9", killed=True)
        return result

    def _ruined(self, model: Path) -> Path:
        """A copy of the model with NaN in it."""
        copy = Path(shutil.copytree(model, self.scratch / "ruined", dirs_exist_ok=True))
        weights = load_file(copy / "model.safetensors")
        weights["model.norm.weight"] *= float("nan")
        (copy / "model.safetensors").unlink()
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
        return copy


@dataclass
class Training:
    """Training in a home, with shortcuts for the tests."""

    home: Home
    children: Children

    def sweep(self) -> list[str]:
        """Sweep, and return the names of the emitted events."""
        return [event.name for event in self.home.bus(TRAINING, children=self.children).sweep()]

    def queue(self, seed: int, rows: int = ROWS, **columns: Any) -> str:
        """A batch of sums that waits for training."""
        return self.home.add_batch(sums(rows, seed=seed, longest=4), state="queued", **columns)

    def batch(self, batch_id: str) -> BatchRow:
        with self.home.ledger.read() as session:
            return session.get_one(BatchRow, batch_id)

    def checkpoints(self) -> list[CheckpointRow]:
        """Trained ones, the oldest first."""
        with self.home.ledger.read() as session:
            return list(session.query(CheckpointRow).where(CheckpointRow.ordinal > 0).order_by(CheckpointRow.ordinal))

    def line(self) -> LineageRow:
        with self.home.ledger.read() as session:
            return session.get_one(LineageRow, "main")

    def make_champion(self, checkpoint_id: str) -> None:
        with self.home.ledger.write() as tx:
            serving(tx.session).desired_id = checkpoint_id


@pytest.fixture
def start_training(tmp_path: Path, base_model: Path) -> Iterator[Callable[..., Training]]:
    """Make a home with these sections of settings; one a test."""
    opened = []

    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model({**spec, "model": str(base_model)}, lambda _message: None)

    def make(**sections: Any) -> Training:
        hyperparams = {
            "batch_size": STEP_ROWS,
            "save_steps": SEGMENT_STEPS,
            "warmup_steps": 2,
            "max_length": 128,
            **sections.pop("hyperparams", {}),
        }
        folder = sections.pop("home", tmp_path / "run")
        opened.append(small_home(folder, prepare, hyperparams=hyperparams, **sections))
        return Training(opened[-1].__enter__(), Children(tmp_path))

    yield make
    for home in opened:
        home.__exit__(None, None, None)


@pytest.fixture
def training(start_training: Callable[..., Training]) -> Training:
    return start_training()
