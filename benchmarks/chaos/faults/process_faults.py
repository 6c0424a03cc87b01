"""Kills and suspensions of any process of a run, also of the run itself."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial

from ratchet.errors import TransientError
from ratchet.failpoint import DEPLOYING
from ratchet.ledger import deployments
from ratchet.ledger.tables import BlockRow, CheckpointRow
from ratchet.systems import registry
from sqlalchemy import select

from benchmarks.chaos.faults.fault import Fault
from benchmarks.chaos.live_run import LEASE_S, LiveRun, Stuck

APPEARS_S = 20.0
SUSPENDED_S = 1.25 * LEASE_S
ROLLOUT_S = 2.0
ANYWHERE = ("after-claim", "after-work", "before-relay", "after-commit")
SINGLE = ("run", "supervisor", "redis", "server", "page", "fork server")


def _wait_for(run: LiveRun, part: str) -> int | None:
    """The process id of the part, waiting a little for one that is being started; None if there is none."""
    deadline = time.monotonic() + APPEARS_S
    while time.monotonic() < deadline:
        if (pid := run.processes().get(part)) is not None:
            return pid
        time.sleep(0.05)
    return None


def _signal(pid: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def kill(part: str, run: LiveRun, _dice: random.Random) -> str:
    pid = _wait_for(run, part)
    return f"killed {pid}" if pid is not None and _signal(pid, signal.SIGKILL) else "there was none"


def kill_worker(run: LiveRun, dice: random.Random) -> str:
    system = dice.choice(sorted(registry.systems()))
    return f"{system}: {kill(system, run, dice)}"


def kill_several(run: LiveRun, dice: random.Random) -> str:
    """Half of the workers at once."""
    systems = dice.sample(sorted(registry.systems()), 5)
    found = run.processes()
    killed = [system for system in systems if system in found and _signal(found[system], signal.SIGKILL)]
    return f"killed {', '.join(killed)}"


def kill_any(run: LiveRun, dice: random.Random) -> str:
    part, pid = dice.choice(sorted(run.processes().items()))
    return f"killed {part}" if _signal(pid, signal.SIGKILL) else f"{part} had just ended"


def terminate_worker(run: LiveRun, dice: random.Random) -> str:
    system = dice.choice(sorted(registry.systems()))
    pid = _wait_for(run, system)
    return f"asked {system} to end" if pid is not None and _signal(pid, signal.SIGTERM) else f"{system} was not there"


def suspend(parts: tuple[str, ...], run: LiveRun, dice: random.Random) -> str:
    """SIGSTOP for longer than a lease, so that a claim is taken over before its owner continues."""
    part = dice.choice(parts)
    pid = _wait_for(run, part)
    if pid is None:
        return f"{part} was not there"
    return f"suspended {part} for {SUSPENDED_S:g} s" if _suspend([pid]) else f"{part} had just ended"


def suspend_all(run: LiveRun, _dice: random.Random) -> str:
    """The whole run, as a laptop that sleeps."""
    pids = [process.pid for process in run.family()]
    _suspend(pids)
    return f"suspended {len(pids)} processes for {SUSPENDED_S:g} s"


def _suspend(pids: list[int]) -> bool:
    stopped = [pid for pid in pids if _signal(pid, signal.SIGSTOP)]
    time.sleep(SUSPENDED_S)
    for pid in stopped:
        _signal(pid, signal.SIGCONT)
    return bool(stopped)


def die_at_point(run: LiveRun, dice: random.Random) -> str:
    """The next process that comes to a named point of the code kills itself there."""
    point = dice.choice(ANYWHERE)
    (run.failpoints / point).touch()
    died = _consumed(run, point, APPEARS_S)
    return f"died {point}" if died else f"nobody came {point}"


def arm_gate(run: LiveRun, dice: random.Random) -> str:
    """The deployer kills itself at a step of its next challenge, whenever that comes."""
    point = dice.choice(DEPLOYING)
    armed = (run.failpoints / point).exists()
    (run.failpoints / point).touch()
    return f"armed {point}{', as before' if armed else ''}"


def kill_server_in_rollout(run: LiveRun, dice: random.Random) -> str:
    """An operator deploys another checkpoint; the server is killed at any moment of the roll-out."""
    server, deployed = run.processes().get("server"), _deploy_another(run, dice)
    if server is None or deployed is None:
        return "there was no server, or no other checkpoint"
    pause_s = dice.uniform(0.0, ROLLOUT_S)
    time.sleep(pause_s)
    had = run.served() == deployed
    _signal(server, signal.SIGKILL)
    return f"deployed {deployed}, killed the server {pause_s:.1f} s later{', when it was live' if had else ''}"


def kill_server_at_step(step: str, run: LiveRun, dice: random.Random) -> str:
    """The same at a step of the roll-out, where the deployer kills itself, and the server is killed with it."""
    server = run.processes().get("server")
    (run.failpoints / step).touch()
    deployed = _deploy_another(run, dice)
    if server is None or deployed is None:
        (run.failpoints / step).unlink(missing_ok=True)
        return "there was no server, or no other checkpoint"
    came = _consumed(run, step, APPEARS_S)
    _signal(server, signal.SIGKILL)
    return f"deployed {deployed}, killed the server {step}" if came else f"the deployer did not come to {step}"


def _deploy_another(run: LiveRun, dice: random.Random) -> str | None:
    try:
        with run.ledger.write() as tx:
            champion = deployments.serving(tx.session).desired_id
            blocked = select(BlockRow.weights)
            saved = select(CheckpointRow.id).where(
                CheckpointRow.state == "saved", CheckpointRow.id != champion, CheckpointRow.weights.not_in(blocked)
            )
            ids = sorted(tx.session.scalars(saved))
            if not ids:
                return None
            chosen = dice.choice(ids[-5:])
            deployments.deploy(tx, chosen, "operator", "a round of chaos", is_proved=False)
            return chosen
    except TransientError as error:
        raise Stuck(f"the ledger is away: {error}") from error


def _consumed(run: LiveRun, point: str, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not (run.failpoints / point).exists():
            return True
        time.sleep(0.02)
    (run.failpoints / point).unlink(missing_ok=True)
    return False


PROCESS_FAULTS = (
    *(Fault(f"{part} killed", partial(kill, part)) for part in SINGLE),
    Fault("worker killed", kill_worker),
    Fault("model child killed", partial(kill, "model child")),
    Fault("five workers killed at once", kill_several),
    Fault("any process killed", kill_any),
    Fault("worker asked to end", terminate_worker),
    Fault("worker killed at a named point", die_at_point),
    Fault("worker suspended beyond its lease", lambda run, dice: suspend(tuple(sorted(registry.systems())), run, dice)),
    Fault("model child suspended", partial(suspend, ("model child",))),
    Fault("server or supervisor suspended", partial(suspend, ("server", "supervisor", "run"))),
    Fault("everything suspended", suspend_all),
    Fault("deployer killed at a gate's step", arm_gate),
    Fault("server killed amid a roll-out", kill_server_in_rollout),
    Fault("server and deployer killed after the load", partial(kill_server_at_step, "after-load")),
    Fault("server and deployer killed after the switch", partial(kill_server_at_step, "after-switch")),
)
