from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.disk import small_disk
from tests.support.ledgers import migrated, postgres

__all__ = ["migrated", "postgres", "small_disk"]

MEMORY_DISK = Path("/dev/shm")
ROOM_BYTES = 2_000_000_000
UMASK = os.umask(0o022)
os.umask(UMASK)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the homes of tests in memory, where it has room: they sync often, and none of them outlives the run."""
    option = config.option
    if option.basetemp is None and os.access(MEMORY_DISK, os.W_OK) and shutil.disk_usage(MEMORY_DISK).free > ROOM_BYTES:
        option.basetemp = tempfile.mkdtemp(prefix="ratchet-tests-", dir=MEMORY_DISK)
        config.add_cleanup(lambda: shutil.rmtree(option.basetemp, ignore_errors=True))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Without garbage collection, which takes a fifth of the time here."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def _restored_umask() -> Generator[None]:
    """What writes into a home hides its files from other users, for the rest of the process: also a fixture of a whole
    module, which comes before this one."""
    os.umask(UMASK)
    yield
    os.umask(UMASK)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, then those that train, so that no worker is left with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, "trainer" not in item.path.parts))


def pytest_collection_finish() -> None:
    """Spare the collector what lives to the end, 750,000 objects: training asks for full rounds in every segment."""
    gc.collect()
    gc.freeze()
