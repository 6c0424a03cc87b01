"""A proxy of the environment that is dead must catch no call to this machine or to the local network."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.cli.doctor.machine import proxies as examine_proxies
from ratchet.data.example import Message
from ratchet.inference.generator import Decoding
from ratchet.inference.http_generator import HttpGenerator
from ratchet.inference.vllm_api import VllmApi
from ratchet.proxies import VARIABLES, configured, is_local, mounts_for
from ratchet.serving.client import ServingClient
from ratchet.settings import Settings

DEAD = "http://127.0.0.1:9"


class Handler(BaseHTTPRequestHandler):
    """Health, a version, a chat completion and an empty S3 bucket."""

    def do_GET(self) -> None:
        if self.path.startswith("/health"):
            self._send({"live": None, "loaded": {}, "waiting": 0, "uptime_s": 1.0, "version": "1"})
        elif self.path.startswith("/version"):
            self._send({"version": "0.32"})
        else:
            self._send("<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")

    def do_HEAD(self) -> None:
        self._send("")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send({"choices": [{"message": {"content": "2"}, "finish_reason": "stop"}]})

    def _send(self, body: object) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: ARG002
        return None


@pytest.fixture
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in VARIABLES:
        monkeypatch.setenv(name, DEAD)


@pytest.mark.usefixtures("dead_proxy")
def test_own_calls_do_not_go_through_a_proxy(server: str, tmp_path: Path) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(server)  # what a client that trusts the environment does
    with ServingClient(server, SecretStr("x")) as client:
        assert client.health().live is None
    vllm = VllmApi(server, 1.0)
    assert vllm.version() == "0.32"
    vllm.close()
    with HttpGenerator(server, "m", max_attempts=1) as generator:
        assert generator.generate([(Message(role="user", content="1+1="),)], Decoding())[0].text == "2"
    stores = {"url": "s3://bucket/here", "endpoint": server, "access_key": "k", "cache_gb": 1}
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    store = artifact_store(Settings(home=tmp_path, artifacts={**stores, "secret_key_file": secret}))
    assert store.exists("0" * 64)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8100", True),
        ("http://[::1]:8100/v1", True),
        ("http://192.168.1.20:8333", True),
        ("http://10.0.0.7", True),
        ("http://serving:8100", True),
        ("http://localhost:11434/v1", True),
        ("http://host.docker.internal:1234", True),
        ("http://gpu.local:8000", True),
        ("https://api.openai.com/v1", False),
        ("https://8.8.8.8/v1", False),
        ("https://huggingface.co", False),
    ],
)
def test_what_is_local(url: str, expected: bool) -> None:
    assert is_local(url) is expected
    assert (mounts_for(url) is not None) is expected


@pytest.mark.usefixtures("dead_proxy")
def test_a_teacher_on_the_internet_is_called_through_the_proxy() -> None:
    client = httpx.Client(mounts=mounts_for("https://api.openai.com/v1"))
    assert client._transport_for_url(httpx.URL("https://api.openai.com/v1")) is not client._transport
    client.close()


@pytest.mark.usefixtures("dead_proxy")
def test_doctor_names_the_proxies_without_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@proxy:1080")
    found = examine_proxies(Settings())
    assert found.state == "note"
    assert f"HTTP_PROXY={DEAD}" in found.text
    assert "secret" not in found.text
    for name in VARIABLES:
        monkeypatch.delenv(name)
    assert configured() == {}
    assert examine_proxies(Settings()).state == "ok"
