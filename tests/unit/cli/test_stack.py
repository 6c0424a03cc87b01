"""`ratchet discover` from the outside: it serves at once, whatever is there, and ends when it is asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ports import free_port
from ratchet.settings import Settings

from tests.support.scrape import Scrape

RATCHET = [sys.executable, "-c", "from ratchet.cli.main import app; app()"]


def test_discover_serves_until_it_is_stopped(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "run")
    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    ledger.close()
    environment = {**os.environ, "RATCHET_HOME": str(settings.home)}
    environment.pop("RATCHET_CONFIG", None)
    command = [*RATCHET, "discover", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        said = service.stdout.readline()
        found = Scrape.of(said.split()[-1] + "/metrics")
        service.send_signal(signal.SIGTERM)
    assert service.returncode == 0
    assert found["ratchet_ledger_up"] == 1
    assert found["ratchet_redis_up"] == 0
