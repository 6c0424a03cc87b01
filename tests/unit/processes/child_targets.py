"""What the tests run in children."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ratchet.errors import SettingsError, TransientError, UnknownPlugin
from ratchet.processes.fork_server import Progress

Spec = dict[str, Any]


def double(spec: Spec, progress: Progress) -> Spec:
    return {"doubled": spec["number"] * 2}


def where_am_i(spec: Spec, progress: Progress) -> Spec:
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "was_preloaded": "statistics" in sys.modules,
        "threads": os.environ["OMP_NUM_THREADS"],
    }


def count(spec: Spec, progress: Progress) -> Spec:
    for step in range(spec["steps"]):
        progress({"step": step})
    return {"steps": spec["steps"]}


def echo(spec: Spec, progress: Progress) -> Spec:
    return spec


def speak(spec: Spec, progress: Progress) -> Spec:
    print("on stdout")
    print("on stderr", file=sys.stderr)
    os.write(1, b"from C\n")
    return {}


def fail(spec: Spec, progress: Progress) -> Spec:
    raise ValueError(f"no such level: {spec['level']}")


def lose_a_pipe(spec: Spec, progress: Progress) -> Spec:
    raise BrokenPipeError("the store has closed the connection")


def leave(spec: Spec, progress: Progress) -> Spec:
    os._exit(3)


def return_a_list(spec: Spec, progress: Progress) -> Spec:
    return [1]  # type: ignore[return-value]


def return_a_path(spec: Spec, progress: Progress) -> Spec:
    return {"path": Path("/tmp")}


def run_out_of_memory(spec: Spec, progress: Progress) -> Spec:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 GB")


def find_the_store_away(spec: Spec, progress: Progress) -> Spec:
    raise TransientError("the store is away")


def fill_the_disk(spec: Spec, progress: Progress) -> Spec:
    raise OSError(errno.ENOSPC, "No space left on device")


def refuse_the_device(spec: Spec, progress: Progress) -> Spec:
    raise SettingsError("inference.device is 'cuda', but torch finds no CUDA GPU")


def miss_a_plugin(spec: Spec, progress: Progress) -> Spec:
    raise UnknownPlugin("no profile 'odd'")


def segfault(spec: Spec, progress: Progress) -> Spec:
    print("about to crash")
    ctypes.string_at(0)
    return {}


def sleep_for_ever(spec: Spec, progress: Progress) -> Spec:
    progress({"pid": os.getpid()})
    while True:
        time.sleep(60)


def finish_when_stopped(spec: Spec, progress: Progress) -> Spec:
    stopped: list[Any] = []
    signal.signal(signal.SIGTERM, lambda *received: stopped.append(received))
    progress({"pid": os.getpid()})
    while not stopped:
        time.sleep(0.01)
    return {"saved": True}


def ignore_being_stopped(spec: Spec, progress: Progress) -> Spec:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sleep_for_ever(spec, progress)


def have_workers(spec: Spec, progress: Progress) -> Spec:
    """A process of its own and a forked one that holds all our descriptors, as data loaders do."""
    started = subprocess.Popen(["sleep", "600"])
    forked = os.fork()
    if forked == 0:
        time.sleep(600)
        os._exit(0)
    progress({"pids": [os.getpid(), started.pid, forked]})
    if spec.get("then") == "return":
        return {}
    return sleep_for_ever(spec, progress)


def meet(spec: Spec, progress: Progress) -> Spec:
    """Returns only when the other child of the meeting is there too."""
    folder = Path(spec["folder"])
    (folder / spec["name"]).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
        progress({})
    return {"name": spec["name"]}
