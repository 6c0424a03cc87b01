"""The embedded Redis: starts anywhere, keeps its data, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from kombu import Connection
from ratchet.bus.embedded_redis import EmbeddedRedis, embedded_url
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.settings import Settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from tests.support.disk import FILLING, SmallDisk, fill, free
from tests.support.redis import redis_server

__all__ = ["redis_server"]


def open_client(server: EmbeddedRedis) -> Redis:
    return Redis.from_url(server.url)


def test_redis_py_and_celery_take_the_same_url(redis_server: EmbeddedRedis) -> None:
    with open_client(redis_server) as client:
        assert client.ping()
    with Connection(redis_server.url) as connection:
        queue = connection.SimpleQueue("3090.testing")
        queue.put({"subject": 1})
        message = queue.get(timeout=10)
        message.ack()
        queue.close()
    assert message.payload == {"subject": 1}


def test_the_server_persists_never_evicts_and_binds_to_loopback(redis_server: EmbeddedRedis) -> None:
    with open_client(redis_server) as client:
        settings = client.config_get("*")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


def test_without_the_password_nothing_is_answered(redis_server: EmbeddedRedis) -> None:
    with (
        Redis(port=redis_server.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(AuthenticationError, match="authenticated"),
    ):
        stranger.ping()
    assert redis_server.pid is not None
    secret = redis_server.url.split(":")[2].split("@")[0]
    assert secret not in " ".join(psutil.Process(redis_server.pid).cmdline())
    for name in ("password", "redis.conf", "url"):
        assert (redis_server.folder / name).stat().st_mode & 0o777 == 0o600


def test_a_killed_server_restarts_with_its_port_and_data(redis_server: EmbeddedRedis) -> None:
    url = redis_server.url
    with open_client(redis_server) as client:
        client.xadd("ratchet:events:checkpoint.saved", {"id": "1"})
        client.config_set("appendfsync", "always")
        client.set("durable", "yes")
        redis_server.kill()
        assert redis_server.pid is None
        redis_server.start()
        assert redis_server.url == url
        assert client.get("durable") == b"yes"
        assert client.xlen("ratchet:events:checkpoint.saved") == 1


def test_a_stopped_server_restarts_with_its_port_and_data(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as first, open_client(first) as client:
        client.set("key", "value")
    assert not (tmp_path / "url").exists()
    with EmbeddedRedis(tmp_path) as second, open_client(second) as client:
        assert second.url == first.url
        assert client.get("key") == b"value"


def test_a_taken_port_is_left_for_a_free_one_unless_it_was_asked_for(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as first:
        port = first.port
    with socket.create_server(("127.0.0.1", port)):
        with EmbeddedRedis(tmp_path) as second:
            assert second.port != port
        with pytest.raises(TransientError, match=rf"Port {port} is in use by .*pid {os.getpid()}.*redis\.port"):
            EmbeddedRedis(tmp_path, port=port).start()


def test_two_servers_never_share_a_folder(redis_server: EmbeddedRedis) -> None:
    with pytest.raises(PreconditionFailed, match=rf"pid {redis_server.pid}\) already runs"):
        EmbeddedRedis(redis_server.folder, lock_timeout_s=0).start()


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "redis-server"
    server.write_text("""#!/bin/sh
if [ "$1" = --version ]; then echo "Redis server v=7.2.0"; exit; fi
echo "no memory for this" >"$(dirname "$1")/redis.log"
exit 1
""")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(TransientError, match=r"ended at once.*\n.*no memory for this"):
        EmbeddedRedis(tmp_path / "redis").start()


def test_a_manifest_of_its_data_that_is_damaged_is_no_obstacle(tmp_path: Path) -> None:
    aof = tmp_path / "data" / "appendonlydir"
    aof.mkdir(parents=True)
    (aof / "appendonly.aof.manifest").write_text("nonsense\n")
    with EmbeddedRedis(tmp_path) as server, open_client(server) as client:
        assert client.ping()


def test_a_folder_name_may_contain_blanks_and_quotes(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / 'my "run" here') as server, open_client(server) as client:
        assert client.ping()


def test_workers_find_the_url_below_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(TransientError, match="make run"):
        embedded_url(settings)
    with EmbeddedRedis.below(settings) as server:
        assert embedded_url(settings) == server.url


PARENT = """
import sys
from pathlib import Path
from ratchet.bus.embedded_redis import EmbeddedRedis
print(EmbeddedRedis(Path(sys.argv[1])).start().pid, flush=True)
sys.stdin.read()
"""


def test_the_server_ends_with_its_parent_and_releases_the_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    with EmbeddedRedis(tmp_path) as server:
        assert server.pid != pid
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def test_only_the_main_thread_may_start_a_server_that_ends_with_it(tmp_path: Path) -> None:
    refusals: list[PreconditionFailed] = []

    def start() -> None:
        try:
            EmbeddedRedis(tmp_path).start()
        except PreconditionFailed as refusal:
            refusals.append(refusal)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(refusals[0])


def test_empty_files_are_written_again(tmp_path: Path) -> None:
    """An empty password would admit everyone."""
    folder = tmp_path / "redis"
    folder.mkdir()
    for name in ("password", "port", "url", "redis.conf", "redis.pid"):
        (folder / name).write_bytes(b"")
    with pytest.raises(TransientError, match=r"url is empty.*make run"):
        embedded_url(Settings(home=tmp_path))
    with EmbeddedRedis(folder) as server:
        assert len((folder / "password").read_text()) > 20
        assert embedded_url(Settings(home=tmp_path)) == server.url
        with open_client(server) as client:
            assert client.ping()
        with (
            Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
            pytest.raises(AuthenticationError, match="authenticated"),
        ):
            stranger.ping()


@pytest.mark.parametrize("port", [b"\0\0\0\0", b"63x"])
def test_a_port_that_cannot_be_read_is_chosen_again(tmp_path: Path, port: bytes) -> None:
    (tmp_path / "port").write_bytes(port)
    with EmbeddedRedis(tmp_path) as server:
        assert (tmp_path / "port").read_text() == f"{server.port}\n"


def test_a_full_disk_is_reported_and_the_next_start_works(small_disk: SmallDisk) -> None:
    folder = small_disk(4_000_000) / "redis"
    folder.mkdir()
    fill(folder)
    with pytest.raises(TransientError, match="is full: 0 are free"):
        EmbeddedRedis(folder).start()
    free(folder)
    with EmbeddedRedis(folder) as server, open_client(server) as client:
        assert client.ping()


@pytest.mark.parametrize("pages", range(1, 5))
def test_a_disk_with_room_for_a_few_small_files_is_reported_too(small_disk: SmallDisk, pages: int) -> None:
    """Whether it is Redis that finds the disk full, in its log, or we."""
    folder = small_disk(4_000_000) / "redis"
    folder.mkdir()
    fill(folder)
    os.truncate(folder / FILLING, (folder / FILLING).stat().st_size - pages * os.sysconf("SC_PAGE_SIZE"))
    with pytest.raises(TransientError, match="No space left on device"):
        EmbeddedRedis(folder).start()
    free(folder)
    with EmbeddedRedis(folder) as server, open_client(server) as client:
        assert client.ping()


def test_data_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    """As written by a newer version, or damaged by a power cut. The ledger holds all that Redis holds."""
    with EmbeddedRedis(tmp_path) as server, open_client(server) as client:
        client.set("key", "value")
    files = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    for file in files:
        file.write_bytes(b"\0" * 1000)
    with EmbeddedRedis(tmp_path) as server, open_client(server) as client:
        assert client.get("key") is None
        client.set("key", "again")
    kept = [file for file in (tmp_path / "data.unreadable").rglob("*") if file.is_file()]
    assert len(kept) == len(files)
    with EmbeddedRedis(tmp_path) as server, open_client(server) as client:
        assert client.get("key") == b"again"
