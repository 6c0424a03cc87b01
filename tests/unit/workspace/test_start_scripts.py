"""The scripts that start Redis and Flower in their containers, with passwords as people choose them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from ratchet.bus.embedded_redis import server_executable
from ratchet.ports import free_port
from redis import Redis
from redis.exceptions import AuthenticationError, ConnectionError, RedisError

COMPOSE = Path(__file__).parents[3] / "compose"
ODD = "p@ss #w/rd: 100%"


def script(folder: Path, name: str) -> Path:
    """A copy that finds its passwords, and programs of that name, in the folder."""
    text = (COMPOSE / name / "start.sh").read_text()
    copy = folder / f"{name}.sh"
    copy.write_text(text.replace("/run/secrets/", f"{folder}/").replace("/tmp/", f"{folder}/"))
    return copy


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("written", [ODD.encode(), ODD.encode() + b"\n", b"\xef\xbb\xbf" + ODD.encode() + b"\r\n"])
def test_redis_takes_a_password_with_any_character(tmp_path: Path, written: bytes) -> None:
    for user in ("admin", "flower", "monitor"):
        (tmp_path / f"redis-{user}").write_text(f"{user}-password")
    (tmp_path / "redis-worker").write_bytes(written)
    port = free_port()
    program(tmp_path, "chown", "exit 0")
    start = f'shift; exec {server_executable()} --port {port} --bind 127.0.0.1 --dir {tmp_path} "$@"'
    program(tmp_path, "docker-entrypoint.sh", start)
    server = subprocess.Popen(["sh", script(tmp_path, "redis")], env=environment(tmp_path), stdout=subprocess.DEVNULL)
    try:
        client = Redis(port=port, username="worker", password=ODD)
        deadline = time.monotonic() + 10.0
        while True:
            try:
                assert client.set("key", "value")
                break
            except ConnectionError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with pytest.raises(AuthenticationError):
            Redis(port=port, username="worker", password="p@ss").ping()
        with pytest.raises(RedisError):
            client.config_get("*")
    finally:
        server.kill()
        server.wait()


def test_flower_gets_its_password_quoted_and_keeps_a_bounded_number_of_tasks(tmp_path: Path) -> None:
    (tmp_path / "flower").write_text("login")
    (tmp_path / "redis-flower").write_text(f"{ODD}\n")
    program(tmp_path, "celery", 'echo "$CELERY_BROKER_URL $*"')
    said = subprocess.run(
        ["sh", script(tmp_path, "flower")], env=environment(tmp_path), capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("redis://flower:p%40ss%20%23w%2Frd%3A%20100%25@redis:6379/0 flower ")
    assert "--max_tasks=5000" in said
