"""How vLLM is started and watched, shown with programs that are not vLLM."""

from __future__ import annotations

import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import ServingError
from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Prompt
from ratchet.inference.vllm_replica import VllmReplicas
from ratchet.serving.pending import PendingRequest
from ratchet.serving.vllm_engine import VllmEngine, VllmQueue
from ratchet.settings import Settings
from ratchet.settings.serving import ServingSettings
from ratchet.watchdog import Watchdog

from tests.support.workers import wait_until

LIMIT_S = 5.0


class Clock:
    """A time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Hanging:
    """A fake vLLM that answers once it is released."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def answer(self, pending: PendingRequest) -> None:
        self.let_go.wait(60)
        pending.fail(ValueError("late"))


def pending() -> PendingRequest:
    return PendingRequest(Prompt((1, 2), 4, Decoding()), timeout_s=60)


def test_the_watchdog_reports_requests_that_hang_and_no_idle_queue() -> None:
    clock, vllm = Clock(), Hanging()
    watchdog = Watchdog(clock=clock)
    generator: Any = vllm
    queue = VllmQueue("cp-1", generator, max_batch=2, max_queue=10, limit_s=LIMIT_S, watchdog=watchdog)

    def look(seconds: int) -> str | None:
        for _ in range(seconds):
            clock.now += 1.0
            watchdog.check()
        return watchdog.problem

    assert look(1_000) is None
    hanging = pending()
    queue.submit(hanging)
    assert look(11) is None
    assert look(1) == "the queue of cp-1 to vLLM has stood still for more than 10 s"
    assert not queue.close(0.01)
    vllm.let_go.set()
    wait_until(lambda: queue.in_flight == 0)
    assert look(1_000) is None
    assert queue.close(60)


def command(program: str) -> str:
    """A vllm_command that runs this Python program."""
    return f"{sys.executable} -c {shlex.quote(program)} {{path}} {{name}} {{port}} {{dtype}}"


def start_error(tmp_path: Path, settings: ServingSettings, **times: float) -> str:
    """The error of a checkpoint that is served with these settings."""
    replicas = VllmReplicas(settings.vllm_command, "bf16", tmp_path / "log", 10.0, 4, **times)
    with pytest.raises(ServingError) as caught:
        replicas.start(Path("/checkpoint"), "w")
    return str(caught.value)


def test_the_command_is_the_configured_one_with_its_placeholders_filled_in(tmp_path: Path) -> None:
    settings = ServingSettings(vllm_command=command("import sys; print(sys.argv[1:]); sys.exit(3)"))
    error = start_error(tmp_path, settings)
    assert "exited with code 3: ['/checkpoint', 'ratchet-w', '" in error
    assert error.rstrip().endswith("'bfloat16']")


def test_a_process_that_does_not_answer_in_time_is_an_error(tmp_path: Path) -> None:
    settings = ServingSettings(vllm_command=command("import time; time.sleep(600)"))
    error = start_error(tmp_path, settings, start_timeout_s=0.05)
    assert "did not answer within 0.05 s" in error


def test_the_thread_that_restarts_replicas_is_watched(tmp_path: Path) -> None:
    class Broken:
        def restart_if_dead(self) -> None:
            raise ValueError("not as expected")

    watchdog = Watchdog()
    engine = VllmEngine(Settings(serving={"engine": "vllm"}), tmp_path / "log", watchdog=watchdog)
    assert watchdog.check() is None
    broken: Any = Broken()
    engine._loaded.append(broken)
    wait_until(lambda: watchdog.problem is not None)
    assert watchdog.problem is not None
    assert watchdog.problem.startswith("thread vllm-restart has ended")
    engine.close()
