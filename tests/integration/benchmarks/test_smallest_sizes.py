"""Every benchmark runs at its smallest size, and prints tables of the shape of its results.

A script is found by its ``__main__``. It names its smallest size in ``SMOKE``: a new one without it fails here. All
are forked from one process, since importing what they need takes longer than their smallest sizes.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ratchet.ledger.tables import CheckpointRow
from ratchet.processes.child_runner import ChildRunner
from ratchet.processes.supervisor import shared_preload
from ratchet.settings import Settings

from tests.support.home import small_home

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted(file for file in ROOT.glob("benchmarks/*/*.py") if "__main__" in file.read_text())
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*")
IMPOSSIBLE = re.compile(r"\b(nan|inf|infinity)\b", re.IGNORECASE)
SHARED = ("tests.support.workers", "tests.support.synthetic_ledger", "tests.integration.benchmarks.as_command")
LIMIT_S = 540.0
"""A limit for what hangs: a machine that does much beside it takes minutes."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def smallest_size(script: Path) -> list[str]:
    """The arguments that the script names in SMOKE."""
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["SMOKE"]:
            return [str(argument) for argument in ast.literal_eval(node.value)]
    pytest.fail(f"{script.relative_to(ROOT)} names no smallest size: SMOKE = (arguments, …)")


@pytest.fixture(scope="module")
def children() -> Iterator[ChildRunner]:
    """Children that have imported what the children of all workers of one machine import, and what tests share."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with ChildRunner([*shared_preload(Settings()), *SHARED], env={"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}) as runner:
        yield runner


@pytest.fixture(scope="module")
def finished_home(tmp_path_factory: pytest.TempPathFactory, children: ChildRunner) -> Iterator[Path]:
    """What the benchmark of mining reads: two checkpoints of a run, the first with levels at its frontier."""

    def prepare(spec: dict[str, Any]) -> dict[str, Any]:
        return children.run("ratchet.run.base_model:prepare_base_model", spec)

    turns = count()
    with small_home(tmp_path_factory.mktemp("finished") / "run", prepare) as home:
        home.add_record(home.base_id(), "probe", lambda _item: next(turns) % 2 == 0)
        newer = home.add_checkpoint()
        with home.ledger.write() as tx:
            base = tx.session.get_one(CheckpointRow, home.base_id())
            row = tx.session.get_one(CheckpointRow, newer)
            row.artifact, row.weights = base.artifact, base.weights
        yield home.settings.home


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.parent.name}/{script.stem}")
def test_each_benchmark_runs_at_its_smallest_size_and_prints_finite_numbers(
    script: Path, tmp_path: Path, children: ChildRunner, request: pytest.FixtureRequest
) -> None:
    arguments = [
        str(request.getfixturevalue("finished_home")) if each == "HOME" else each for each in smallest_size(script)
    ]
    before = {file: file.read_bytes() for file in script.parent.iterdir() if file.is_file()}
    printed = run_to_its_end(children, script, arguments, tmp_path)
    assert {file: file.read_bytes() for file in script.parent.iterdir() if file.is_file()} == before
    assert not IMPOSSIBLE.search(printed), printed
    tables = list(tables_in(printed))
    if tables:
        for header, *rows in tables:
            assert rows, header
            assert {len(row) for row in rows} == {len(header)}, rows
            assert any(NUMBER.search(cell) for row in rows for cell in row), rows
    else:
        found = numbers_in(json.loads(printed[printed.index("\n{") + 1 :]))
        assert found
        assert all(math.isfinite(number) for number in found)


def run_to_its_end(children: ChildRunner, script: Path, arguments: list[str], folder: Path) -> str:
    """What a benchmark prints, which must succeed. One that hangs is killed with the servers that it has started."""
    out, err = folder / "out", folder / "err"
    spec = {
        "module": ".".join(script.relative_to(ROOT).with_suffix("").parts),
        "arguments": arguments,
        "folder": str(ROOT),
        "environment": {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        "stdout": str(out),
    }
    ended = children.run("tests.integration.benchmarks.as_command:run", spec, stall_s=LIMIT_S, log_path=err)
    printed = out.read_text(encoding="utf-8")
    assert ended["exit_code"] == 0, printed[-2_000:] + err.read_text(errors="replace")[-4_000:]
    return printed


def tables_in(text: str) -> Iterator[list[list[str]]]:
    """The Markdown tables, each with its header first and without the line below it."""
    table: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not all(set(cell) <= set("-: ") for cell in cells):
                table.append(cells)
        elif table:
            yield table
            table = []


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [number for each in inner for number in numbers_in(each)]
    return [float(value)] if isinstance(value, int | float) else []
