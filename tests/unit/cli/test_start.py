"""A command imports only what it needs: nearly all of its start is imports. Times are measured in benchmarks/cli."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import WorkerRow
from ratchet.systems import registry
from ratchet.systems.system import Declaration

HEAVY = ("torch", "transformers", "scipy", "numpy", "reasoning_gym", "sympy", "alembic", "celery", "httpx")
WITHOUT = {
    ("--help",): (*HEAVY, "rich", "pydantic", "sqlalchemy", "prometheus_client", "redis", "fsspec"),
    ("deploy", "--help"): (*HEAVY, "rich", "redis", "fsspec"),
    ("show", "--help"): (*HEAVY, "rich", "redis"),
    ("status", "--json"): (*HEAVY, "redis", "fsspec", "psutil", "evaluator.systems.testing"),
    ("systems",): ("torch", "transformers", "scipy.stats", "scipy.special", "alembic", "celery", "httpx", "redis"),
}
"""By command: what it must not import."""
RUN = """
import json, sys
from ratchet.cli.main import app
sys.argv = {command!r}
try:
    app()
except SystemExit as ended:
    assert not ended.code
print(json.dumps([name for name in {names!r} if name in sys.modules]), file=sys.stderr)
"""


@pytest.mark.parametrize("command", WITHOUT, ids=" ".join)
def test_a_command_imports_only_what_it_needs(ledger: Ledger, command: tuple[str, ...]) -> None:
    with ledger.write() as tx:
        tx.session.query(WorkerRow).delete()
        for system in registry.systems().values():
            names = {"name": f"{system.name}@box+0", "system": system.name, "host": "box", "pid": 1, "version": ""}
            times = {"state": "running", "started_at": tx.now, "seen_at": tx.now}
            tx.session.add(WorkerRow(**names, **times, declaration=asdict(Declaration.of(system))))
    code = RUN.format(command=["ratchet", *command], names=WITHOUT[command])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stderr.splitlines()[-1]) == []
