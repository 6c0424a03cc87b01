"""Parts of the stack are killed, stopped, added and restored: `make test-containers DRILLS=1`.

The drills use one stack, and are written so that each can be the first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.compose import Host, docker, eventually, query

from .conftest import PORTS, host
from .outside import LOOP_S, SOON_S, goes_on, nothing_went_wrong, prometheus

if TYPE_CHECKING:
    from .conftest import Stack

pytestmark = [pytest.mark.containers, pytest.mark.drill, pytest.mark.timeout(1500)]


def test_a_worker_killed_while_working_is_replaced_and_nothing_is_done_twice(stack: Stack) -> None:
    def at_work() -> bool:
        return bool(query(stack.hub, "select 1 from claims where system = 'testing' and owner is not null"))

    eventually(at_work, LOOP_S, "evaluation under way")
    stack.judge.kill("testing")
    stack.judge.up("testing")
    goes_on(stack)
    nothing_went_wrong(stack)


def test_the_loop_survives_a_killed_redis(stack: Stack) -> None:
    stack.hub.kill("redis")
    stack.hub.up("redis")
    goes_on(stack)
    nothing_went_wrong(stack)


def test_stopping_a_host_loses_nothing(stack: Stack) -> None:
    before = query(stack.hub, "select count(*), max(step) from checkpoints")
    stack.trainer.compose("stop")
    held = "select system, subject_id from claims where owner like '%@test-4090+%'"
    assert query(stack.hub, held) == []
    stack.trainer.up()
    goes_on(stack)
    after = query(stack.hub, "select count(*), max(step) from checkpoints")
    assert [int(new) >= int(old) for new, old in zip(after[0], before[0], strict=True)] == [True, True]
    nothing_went_wrong(stack)


@pytest.fixture
def second(stack: Stack) -> Any:
    """Another judging machine, of which this test uses the system that tests."""
    ports = {"RATCHET_PORTS_3090": "294", "RATCHET_NODE_PORT_3090": "29102"}
    folder = stack.secrets.parent
    joining = host(folder, stack.address, "3090-b", "gpu-3090.yml", "cpu-3090.yml", **ports)
    yield joining
    joining.compose("stop", "--timeout", "60")
    joining.down()
    stack.judge.up("testing")


def test_a_second_judging_host_joins_and_takes_work(stack: Stack, second: Host) -> None:
    second.up("testing")
    stack.judge.compose("stop", "testing")
    by_it = "select subject_id from verdicts where system = 'testing' and worker like 'testing@test-3090-b+%'"
    eventually(lambda: query(stack.hub, by_it), LOOP_S, "evaluation by the second host")

    def is_found() -> bool:
        targets = json.dumps(prometheus(stack, "targets?state=active"))
        return f"{stack.address}:29401" in targets

    eventually(is_found, SOON_S, "second host in Prometheus")
    nothing_went_wrong(stack)


def test_a_backup_taken_while_everything_runs_can_be_restored(stack: Stack) -> None:
    """The commands of docs/deploy.md, into a database and a folder of the store beside those in use."""
    shell = ("exec", "-T", "postgres", "sh", "-ec")
    said = stack.hub.compose("run", "--rm", "-T", "ratchet", "backup", "create", "/backups/today")
    assert "restores it" in said
    made = json.loads((stack.secrets.parent / "backups" / "today" / "backup.json").read_text())
    stack.hub.compose(*shell, "createdb -U ratchet copy")
    ledger = f"postgresql+psycopg://ratchet@{stack.address}:{PORTS['RATCHET_LEDGER_PORT']}/copy"
    beside = ("-e", f"RATCHET_LEDGER__URL={ledger}", "-e", "RATCHET_ARTIFACTS__URL=s3://ratchet/copy")
    stack.hub.compose("run", "--rm", "-T", *beside, "ratchet", "backup", "restore", "/backups/today")
    counts = {}
    for table in ("checkpoints", "verdicts", "evaluations"):
        counts[table] = int(stack.hub.compose(*shell, f"psql -U ratchet -At -d copy -c 'select count(*) from {table}'"))
    assert counts == {table: made["ledger"]["rows"][table] for table in counts}
    assert counts["checkpoints"] > 0
    again = json.loads(
        stack.hub.compose("run", "--rm", "-T", *beside, "ratchet", "backup", "create", "/backups/today", "--json")
    )
    assert (again["copied"], again["artifacts"]) == (0, made["artifacts"])
    stack.hub.compose(*shell, "dropdb -U ratchet copy")
    nothing_went_wrong(stack)


def test_the_engine_names_no_secret(stack: Stack) -> None:
    for each in (stack.hub, stack.trainer, stack.judge):
        for container in each.containers().values():
            shown = docker("inspect", container["ID"])
            for name in ("ledger", "redis-worker", "storage", "serving", "grafana", "flower"):
                assert stack.secret(name) not in shown, (container["Service"], name)
    assert PORTS["RATCHET_REDIS_PORT"] in str(stack.hub.containers()["redis"]["Ports"])
