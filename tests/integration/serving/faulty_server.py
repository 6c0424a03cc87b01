"""A server whose batches stall, or end their thread, once a test has put a file into its home."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ratchet import settings as setting_tree
from ratchet.inference.local_generator import LocalGenerator
from ratchet.serving.batcher import Batcher
from ratchet.serving.engine import Engine
from ratchet.serving.server import serve_by
from ratchet.serving.server_home import ServerHome
from ratchet.watchdog import Watchdog

STALL = "stall"
END = "end"
STALL_S = 9.0


class FaultyBatch:
    """A continuous batch; the fault comes with the next step."""

    def __init__(self, batch: Any, home: Path):
        self._batch, self._home = batch, home

    def advance(self, joining: Sequence[Any]) -> Any:
        while (self._home / STALL).exists():
            time.sleep(0.05)
        if (self._home / END).exists():
            (self._home / END).unlink()
            raise SystemExit
        return self._batch.advance(joining)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)


class FaultyGenerator:
    """A working model with a faulty batch."""

    def __init__(self, generator: LocalGenerator, home: Path):
        self._generator, self._home = generator, home

    def continuous_batch(self, max_rows: int) -> FaultyBatch:
        return FaultyBatch(self._generator.continuous_batch(max_rows), self._home)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def main() -> None:
    settings, watchdog = setting_tree.load(None), Watchdog()
    with ServerHome(Path(sys.argv[1])) as home:

        def load(path: Path, weights: str) -> Any:
            return FaultyGenerator(LocalGenerator.load(path, settings.inference, weights), home.folder)

        engine = Engine(load, partial(Batcher, stall_s=STALL_S), lambda: None)
        serve_by(engine, settings, home, "127.0.0.1", 0, watchdog)


if __name__ == "__main__":
    main()
