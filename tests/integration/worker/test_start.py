"""The start of a worker, which needs no supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import WorkerRow
from ratchet.worker.main import EXIT_REFUSED
from sqlalchemy import select, text

from tests.support.playground import ROOT
from tests.support.workers import wait_until


def worker(home: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RATCHET_HOME": str(home),
        "RATCHET_SYSTEMS": "tests.support.toys",
        "PYTHONPATH": str(ROOT),
        "RATCHET_CONTROL__MAX_BACKOFF_S": "0.5",
        "RATCHET_METRICS__EXPORTERS": '{"node": "10.0.0.4:9100"}',
    }
    with open(home / "worker.log", "wb") as log:
        return subprocess.Popen([sys.executable, "-m", "ratchet.worker", "catching"], env=environment, stderr=log)


def log_of(home: Path) -> str:
    return (home / "worker.log").read_text()


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    with ledger.write() as tx:
        tx.session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ledger.close()
    assert worker(tmp_path).wait(60) == EXIT_REFUSED
    assert "9999, which this version does not know" in log_of(tmp_path)


def test_redis_is_waited_for_and_a_signal_ends_the_wait(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    process = worker(tmp_path)
    wait_until(lambda: "trying again in" in log_of(tmp_path), what="waiting for Redis")
    with ledger.read() as session:
        assert session.scalars(select(WorkerRow.pages)).all() == [{"node": "http://10.0.0.4:9100/metrics"}]
    ledger.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    lines = [json.loads(line) for line in log_of(tmp_path).splitlines()]
    assert {line["worker"].split("@")[0] for line in lines} == {"catching"}
