"""The twelfth system of docs/extending.md, installed and run exactly as the page shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployer.gate_inputs import contenders
from ratchet.bus.connection import connect
from ratchet.bus.streams import PREFIX
from ratchet.events.catalogue import CheckpointEvaluated
from ratchet.ledger.tables import CheckpointRow, EvaluationRow
from ratchet.metrics.hub import discovery
from ratchet.metrics.targets import targets
from ratchet.ports import free_port
from sqlalchemy import select

from tests.support.home import Home, small_home
from tests.support.scrape import Scrape
from tests.support.workers import SHORT, Stack, real_workers, wait_until

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "extending.md"
NAME = "answer_length"
OFTEN = SHORT.model_copy(update={"sweep_factor": 0.005})
"""It sweeps every three seconds."""

CYCLE = {
    "SERVING__PORT": "0",
    "SERVING__WATCH_S": "1",
    "QUEUE__BATCH_EXAMPLES": "400",
    "QUEUE__LOW_WATER": "400",
    "QUEUE__HIGH_WATER": "1000",
    "SUITES__FAMILIES": '[{"name": "reverse", "levels": [1, 2]}]',
    "SUITES__PROBE_ITEMS": "40",
    "SUITES__EVAL_ITEMS": "40",
    "SUITES__CONFIRM_ITEMS": "60",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the package of the page is installed."""
    folder = tmp_path_factory.mktemp("length-judge")
    files = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["pyproject.toml", "length_judge/answer_length.py"]
    for name, code in files:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_text(code)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder / "target", folder / "source"], check=True)
    return folder / "target"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "home") as home:
        yield home


@pytest.fixture
def stack(home: Home, installed: Path) -> Iterator[Stack]:
    """The judge's worker, with a real Redis, beside the services that are installed here."""
    with real_workers(home.settings.home, [NAME], path=[installed], control=OFTEN, metrics_port=free_port()) as found:
        yield found


def python(installed: Path, code: str) -> str:
    """The output of a process with the package installed."""
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def outcomes(home: Home) -> dict[str, str]:
    return home.verdicts(NAME)


def missing_judges(home: Home, checkpoint: str) -> tuple[str, ...]:
    """The missing verdicts that the deployment gate waits for."""
    with home.ledger.read() as session:
        return {found.id: found for found in contenders(session)}[checkpoint].judges


def test_a_plug_in_system_gets_a_queue_a_worker_claims_a_sweep_and_dead_letters(home: Home, stack: Stack) -> None:
    announced, silent, empty = (home.add_checkpoint() for _ in range(3))
    home.add_record(announced, "eval", lambda _item: True)
    with stack.ledger.write() as tx:
        tx.emit(CheckpointEvaluated(checkpoint_id=announced, pools=("eval",)))
    wait_until(lambda: announced in outcomes(home), what="a verdict after an event")
    home.add_record(silent, "eval", lambda _item: True)
    wait_until(lambda: silent in outcomes(home), what="a verdict after the sweep")
    with home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, empty).state = "broken"  # nobody looks at it meanwhile
    home.add_record(empty, "eval", lambda _item: True)
    nothing = home.artifacts.publish_lines(iter(()), "record", {}, name="items.jsonl")
    with home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, empty).state = "saved"
        tx.session.scalars(
            select(EvaluationRow).where(EvaluationRow.checkpoint_id == empty)
        ).one().artifact = nothing.id
    wait_until(lambda: bool(home.dead()), what="a dead letter")
    assert NAME in missing_judges(home, empty)
    assert NAME not in missing_judges(home, announced)
    groups = connect(stack.redis.url).xinfo_groups(PREFIX + CheckpointEvaluated.name)
    assert [group["name"] for group in groups] == [NAME.encode()]
    wait_until((stack.settings.status_folder / f"{NAME}.json").exists, what="a status file")


def test_why_shows_the_numbers_of_a_plug_in_that_is_not_installed(home: Home, stack: Stack) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "eval", lambda _item: False)
    wait_until(lambda: checkpoint in outcomes(home), what="its verdict")
    call = [sys.executable, "-c", "from ratchet.cli.main import app; app()", "why", checkpoint]
    environment = {**os.environ, "RATCHET_HOME": str(stack.settings.home)}
    why = subprocess.run(call, capture_output=True, text=True, check=True, env=environment)
    assert "the mean answer has 5 characters, where 400 are allowed" in " ".join(why.stdout.split())


def test_a_plug_in_system_exports_metrics_and_its_backlog(home: Home, stack: Stack) -> None:
    def pages() -> list[str]:
        with home.ledger.read() as session:
            return [entry["targets"][0] for entry in targets(session, home.ledger.now())]

    wait_until(lambda: bool(pages()), what="the worker in the register")
    wait_until(lambda: "ratchet_claims_total" in Scrape.of(f"http://{pages()[0]}/metrics").names(), what="its metrics")
    with discovery(home.settings, "127.0.0.1", 0) as hub:
        address = f"http://127.0.0.1:{hub.server_port}/metrics"
        # A busy machine's first answer may lack what the ledger was too slow to tell.
        wait_until(lambda: "ratchet_workers" in Scrape.of(address).names(), what="what the ledger tells")
        found = Scrape.of(address)
    assert found.value("ratchet_pending_oldest_seconds", system=NAME, subjects="eval records") == 0
    assert found.value("ratchet_workers", system=NAME) == 1


def test_a_plug_in_system_is_in_the_list_of_systems_and_in_the_compose_files(installed: Path) -> None:
    shown = python(installed, "import sys; from ratchet.cli.main import app; sys.argv[1:] = ['systems']; app()")
    assert f"{NAME}  3090  checkpoint.evaluated" in shown
    code = "from scripts.compose import *; print(workers(on_host(registry.systems().values(), '3090')))"
    service = python(installed, code).partition(f"  {NAME}:\n")[2].partition("\n\n")[0]
    assert "image: ${RATCHET_IMAGES:-ratchet}/length-judge:${RATCHET_VERSION:-latest}" in service
    assert f"command: [python, -m, ratchet.worker, {NAME}]" in service
    assert "build:" not in service


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plug_in_system_runs_under_ratchet_run(installed: Path, tmp_path: Path) -> None:
    """A cycle is complete only with its verdict, and its own section of the settings counts."""
    (tmp_path / "ratchet.toml").write_text("[answer_length]\nlimit = 3\n")
    settings = {f"RATCHET_{name}": value for name, value in CYCLE.items()}
    home = {
        "RATCHET_HOME": str(tmp_path / "run"),
        "RATCHET_CONFIG": str(tmp_path / "ratchet.toml"),
        "PYTHONPATH": str(installed),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", "from ratchet.cli.main import app; app()"]
    environment = {**os.environ, **settings, **home}
    done = subprocess.run(
        [*command, "run", "--cycles", "1"], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    why = subprocess.run([*command, "why", "1"], capture_output=True, text=True, check=True, env=environment)
    assert "where 3 are allowed" in " ".join(why.stdout.split())
