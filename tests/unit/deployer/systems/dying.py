"""Deployers that may die: one process that has everything imported and forks, for each line read, one that works.

A line is a JSON object of environment variables, which hold the settings of a home. The answer is a line with the
exit code of the forked process, negative where a signal ended it.
"""

from __future__ import annotations

import json
import os
import sys

from deployer.systems.deployment import SYSTEM
from ratchet.artifacts import ArtifactStore
from ratchet.ledger import Ledger
from ratchet.settings import load

from tests.support.bus import InProcessBus


def work(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    settings = load()
    ledger = Ledger(settings.ledger_url)
    InProcessBus([SYSTEM], settings, ledger, ArtifactStore(settings.artifact_url)).sweep()
    ledger.close()


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        work(json.loads(line))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
