"""What a run starts on a machine, and the ports that it needs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.errors import SettingsError, TransientError
from ratchet.run.local_stack import SERVER, LocalStack, process_names, require_ports, server_environment
from ratchet.settings import Settings


def told(home: Path, **sections: Any) -> Settings:
    return Settings(home=home, **sections)


def test_a_machine_runs_the_systems_of_its_roles(tmp_path: Path) -> None:
    both = process_names(told(tmp_path))
    trains, judges = (process_names(told(tmp_path, placement={"roles": [role]})) for role in ("4090", "3090"))
    assert sorted([*trains, *judges]) == sorted(both)
    assert "training" in trains
    assert {"testing", SERVER} <= set(judges)


def test_no_server_is_started_where_another_is_named(tmp_path: Path) -> None:
    assert SERVER in process_names(told(tmp_path))
    assert SERVER not in process_names(told(tmp_path, serving={"url": "http://judge:8100"}))


def test_the_threads_of_a_model_follow_the_setting(tmp_path: Path) -> None:
    assert server_environment(told(tmp_path, placement={"threads": 3}))["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("section", ["redis", "serving"])
def test_a_taken_port_is_named_by_its_setting(tmp_path: Path, section: str) -> None:
    ports = {"redis": {"port": 0}, "serving": {"port": 0}}
    require_ports(told(tmp_path, **ports))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[section] = {"port": taken.getsockname()[1]}
        with pytest.raises(TransientError, match=rf"{section}\.port"):
            require_ports(told(tmp_path, **ports))


def test_the_port_of_the_embedded_redis_follows_the_setting(tmp_path: Path) -> None:
    assert [EmbeddedRedis.below(told(tmp_path, redis={"port": port})).port for port in (0, 7001)] == [0, 7001]


def test_a_run_does_not_serve_its_page_to_others_without_a_password(tmp_path: Path) -> None:
    stack = LocalStack(told(tmp_path, web={"host": "0.0.0.0"}, serving={"port": 0}), lambda _said: None)
    with pytest.raises(SettingsError, match=r"web\.password_file"):
        stack.__enter__()
    assert not (tmp_path / "ledger.db").exists()
