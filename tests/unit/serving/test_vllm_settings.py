"""How vLLM is started and found, told by commands that are no vLLM."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import ServingError, TransientError
from ratchet.inference.digest import weights_digest
from ratchet.serving.vllm.engine import VllmEngine
from ratchet.serving.vllm.folder import ServedFolder
from ratchet.serving.vllm.processes import ProcessSeats
from ratchet.settings import Settings
from ratchet.settings.serving import ServingSettings
from ratchet.watchdog import Watchdog

from tests.support.workers import wait_until


def command(program: str) -> str:
    """A vllm_command that runs this program."""
    return f"{sys.executable} -c {shlex.quote(program)} {{path}} {{name}} {{port}} {{dtype}}"


def trouble(tmp_path: Path, base: Path | None = None, **serving: object) -> str:
    """What is said of a checkpoint that cannot be served with these settings."""
    settings = ServingSettings.model_validate(serving)
    seats = ProcessSeats(settings, "bf16", tmp_path / "log")
    with pytest.raises(ServingError) as caught:
        seats.take(ServedFolder(Path("/checkpoint"), "w", base))
    return str(caught.value)


SAYS = command("import sys; print(sys.argv[1:]); sys.exit(3)")


def test_the_command_is_the_one_that_is_set_with_its_places_filled_in(tmp_path: Path) -> None:
    said = trouble(tmp_path, vllm_command=SAYS)
    assert "ended with code 3: ['/checkpoint', 'ratchet-w', '" in said
    assert said.rstrip().endswith("'bfloat16']")


def test_the_base_of_adapters_gets_the_options_that_are_set(tmp_path: Path) -> None:
    said = trouble(tmp_path, Path("/base"), vllm_command=SAYS, vllm_adapter_options="--enable-lora --max-loras 2")
    assert "['/base', 'base', '" in said
    assert said.rstrip().endswith("'--enable-lora', '--max-loras', '2']")


def test_how_long_vllm_may_take_to_start_is_set(tmp_path: Path) -> None:
    said = trouble(tmp_path, vllm_command=command("import time; time.sleep(600)"), vllm_start_s=0.05)
    assert "did not answer in time" in said


def test_the_thread_that_brings_checkpoints_back_is_watched(tmp_path: Path) -> None:
    class Broken:
        def tend(self) -> None:
            raise ValueError("not as expected")

    watchdog = Watchdog()
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    engine = VllmEngine(Settings(serving={"engine": "vllm", "vllm_urls": urls}), tmp_path / "log", watchdog=watchdog)
    assert watchdog.look() is None
    broken: Any = Broken()
    engine._loaded.append(broken)
    wait_until(lambda: watchdog.problem is not None)
    assert watchdog.problem == "thread tend-vllm has ended, though nobody asked it to"
    engine.close()


def test_servers_that_run_already_are_asked_where_they_are_set(tmp_path: Path, blue: Path) -> None:
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    engine = VllmEngine(Settings(serving={"engine": "vllm", "vllm_urls": urls}), tmp_path / "log")
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2.*none is both healthy and free"):
        engine(blue, weights_digest(blue))
    engine.close()
