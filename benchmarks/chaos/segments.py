"""The stacks that rounds run on: what each needs beside a plain `ratchet run`, and what makes it impossible here.

A segment is entered once for several rounds, and its home is kept in the journal's folder between them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.chaos.live_run import LiveRun, set_clock
from benchmarks.chaos.s3_server import BUCKET, S3Server
from tests.support.postgres import NoPostgres, Postgres

DISK_BYTES = 1 << 30
CLOCK_SOURCE = Path(__file__).with_name("jumping_clock.c")

Opens = Callable[[Path], AbstractContextManager[LiveRun]]


@dataclass(frozen=True)
class Segment:
    """``open`` runs a stack below a folder; ``lacks`` says what this machine lacks for it and the way to get it, or
    None."""

    open: Opens
    lacks: Callable[[], str | None] = lambda: None


@contextmanager
def plain(folder: Path) -> Iterator[LiveRun]:
    with LiveRun(folder / "home", {}, {}) as run:
        yield run


@contextmanager
def on_postgres(folder: Path) -> Iterator[LiveRun]:
    """Its cluster is kept in the folder, too."""
    server, named = Postgres(folder / "cluster"), folder / "url"
    if not named.exists():
        shutil.rmtree(folder / "cluster", ignore_errors=True)
        server.create()
    server.start()
    try:
        if not named.exists():
            named.write_text(server.database())
        with LiveRun(folder / "home", {"LEDGER__URL": named.read_text()}, {}) as run:
            run.postgres = server
            yield run
    finally:
        server.stop()


@contextmanager
def on_s3(folder: Path) -> Iterator[LiveRun]:
    """The bucket is kept in the folder, too. Any secret will do."""
    secret = folder / "secret"
    secret.write_text("any\n")
    with S3Server(folder / "bucket") as server:
        settings = {
            "ARTIFACTS__URL": f"s3://{BUCKET}/chaos",
            "ARTIFACTS__ENDPOINT": server.url,
            "ARTIFACTS__ACCESS_KEY": "any",
            "ARTIFACTS__SECRET_KEY_FILE": str(secret),
        }
        with LiveRun(folder / "home", settings, {}) as run:
            run.s3 = server
            yield run


@contextmanager
def on_small_disk(folder: Path) -> Iterator[LiveRun]:
    """A tmpfs of a gigabyte. The home is copied from and to the folder, since it is gone with the mount."""
    kept = folder / "home"
    with tempfile.TemporaryDirectory(prefix="ratchet-chaos-disk-") as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", place]
        subprocess.run(mount, check=True, capture_output=True)
        try:
            if kept.exists():
                shutil.copytree(kept, Path(place) / "home", symlinks=True)
            with LiveRun(Path(place) / "home", {}, {}) as run:
                run.disk = Path(place)
                yield run
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(Path(place) / "home", kept, symlinks=True)
            shutil.copy(Path(place) / "home.log", folder)
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def with_own_clock(folder: Path) -> Iterator[LiveRun]:
    """All its processes are told the time by jumping_clock.c, which is compiled here."""
    clock, library = folder / "clock", folder / "jumping_clock.so"
    set_clock(clock, 0)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(CLOCK_SOURCE), "-ldl"], check=True)
    with LiveRun(folder / "home", {}, {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(clock)}) as run:
        run.clock = clock
        yield run


def _lacks_postgres() -> str | None:
    try:
        Postgres(Path())
    except NoPostgres as error:
        return str(error)
    return None


def _lacks_s3fs() -> str | None:
    return None if find_spec("s3fs") else "no s3fs here; `make install-dev` brings it"


def _lacks_mount() -> str | None:
    with tempfile.TemporaryDirectory(prefix="ratchet-chaos-disk-") as place:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "there is no mount here; it takes Linux"
        if done.returncode:
            return f"a tmpfs cannot be mounted: {done.stderr.strip()}; run it as root"
        subprocess.run(["umount", "--lazy", place], check=True)
    return None


def _lacks_compiler() -> str | None:
    if sys.platform != "linux":
        return "the clock of a process is changed on Linux only"
    return None if shutil.which("cc") else "no C compiler here; `apt-get install gcc libc6-dev` brings one"


SEGMENTS = {
    "plain": Segment(plain),
    "postgres": Segment(on_postgres, _lacks_postgres),
    "s3": Segment(on_s3, _lacks_s3fs),
    "small disk": Segment(on_small_disk, _lacks_mount),
    "clock": Segment(with_own_clock, _lacks_compiler),
}
