"""Rounds of random faults. ``RATCHET_CHAOS_ROUNDS`` says how many, ``RATCHET_CHAOS_SEED`` which ones, and
``RATCHET_CHAOS_ENGINE`` (``sqlite`` or ``postgresql``) on which ledger.

Whatever fails, every toy gets exactly one verdict of each system, its effects committed once.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from ratchet.bus.connection import connect
from ratchet.settings.control import ControlSettings

from tests.support.playground import ROOT, Playground
from tests.support.workers import SHORT, real_workers, wait_until

ROUNDS = int(os.environ.get("RATCHET_CHAOS_ROUNDS", "10"))
SEED = int(os.environ.get("RATCHET_CHAOS_SEED", str(random.randrange(1_000_000))))
ENGINE = os.environ.get("RATCHET_CHAOS_ENGINE", "sqlite")
SYSTEMS = ("catching", "counting")
MEMBERS = (*SYSTEMS, "catching-2")
KINDS = ("plain", "artifact", "child", "brief")
POINTS = ("after-claim", "after-artifact", "after-work", "before-relay", "after-commit")
UNLIKE_SHORT = {"max_kills": 10**6, "max_failures": 10**6, "sweep_factor": 0.0005}
CONTROL = ControlSettings(**{**SHORT.model_dump(), **UNLIKE_SHORT})


@dataclass
class Chaos:
    """Injects random faults, and repairs those that do not recover by themselves."""

    playground: Playground
    dice: random.Random

    def kill_worker(self) -> None:
        self._signal(signal.SIGKILL, self.dice.choice(MEMBERS))

    def ask_worker_to_stop(self) -> None:
        self._signal(signal.SIGTERM, self.dice.choice(MEMBERS))

    def kill_at_point(self) -> None:
        self.playground.arm(self.dice.choice(POINTS))

    def kill_all_workers(self) -> None:
        for name in MEMBERS:
            self._signal(signal.SIGKILL, name)

    def freeze_worker(self) -> None:
        """Longer than a lease, so that another worker takes over before the suspended one continues."""
        name = self.dice.choice(MEMBERS)
        pid = self._signal(signal.SIGSTOP, name)
        time.sleep(1.2 * CONTROL.lease_s)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _signal(self, number: signal.Signals, name: str) -> int:
        """Signal a worker. An earlier fault may end it just now: one that was asked to stop, and then suspended, is
        killed by the supervisor."""
        pid = self.playground.pid(name)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid

    def crash_redis(self) -> None:
        self.playground.stack.redis.kill()
        time.sleep(self.dice.uniform(0.0, 1.0))
        self.playground.stack.redis.start()

    def flush_redis(self) -> None:
        connect(self.playground.stack.redis.url).flushall()

    def mishaps(self) -> list[Callable[[], None]]:
        return [
            self.kill_worker,
            self.kill_worker,
            self.ask_worker_to_stop,
            self.kill_at_point,
            self.kill_at_point,
            self.kill_all_workers,
            self.freeze_worker,
            self.crash_redis,
            self.flush_redis,
        ]


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_under_random_faults_every_subject_gets_one_verdict(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    print(f"RATCHET_CHAOS_SEED={SEED} RATCHET_CHAOS_ROUNDS={ROUNDS} RATCHET_CHAOS_ENGINE={ENGINE}")
    dice = random.Random(SEED)
    thrown: list[str] = []
    url = request.getfixturevalue("postgres").database() if ENGINE == "postgresql" else None
    places = {"packages": ["tests.support.toys"], "path": [ROOT], "ledger_url": url}
    with real_workers(tmp_path / "home", SYSTEMS, control=CONTROL, **places) as stack:
        stack.supervisor.start_worker("catching", name="catching-2")
        chaos = Chaos(Playground(stack), dice)
        for number in range(ROUNDS):
            toys = [f"{dice.choice(KINDS)}-{number}-{which}" for which in range(dice.randint(1, 4))]
            thrown += toys
            chaos.playground.throw(*toys)
            time.sleep(dice.uniform(0.0, 0.3))
            mishap = dice.choice(chaos.mishaps())
            print(f"round {number}: {mishap.__name__}")
            mishap()
            if dice.random() < 0.5:  # or else the next round begins amid this one
                chaos.playground.wait_counted(*toys)
        chaos.playground.wait_counted(*thrown)
        wait_until(lambda: chaos.playground.claims() == [], what="no claim left")
        chaos.playground.check_once(*thrown)
