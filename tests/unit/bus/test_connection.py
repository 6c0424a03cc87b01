"""TLS to Redis: the certificate is verified by redis-py and by Celery, also that of a private authority."""

from __future__ import annotations

import gc
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from kombu import pools
from kombu.exceptions import OperationalError
from ratchet.bus.celery_app import broker_app
from ratchet.bus.connection import connect, redis_errors, redis_url
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.errors import TransientError
from ratchet.settings import Settings

from tests.support.redis import redis_server

__all__ = ["redis_server"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that no public authority has signed, with its key beside it."""
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    arguments = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key", "-out", folder / "certificate"]
    subprocess.run([*command.split(), *arguments], check=True, capture_output=True)
    return folder / "certificate"


@pytest.fixture
def tls_port(redis_server: EmbeddedRedis, certificate: Path) -> Iterator[int]:
    """The port of a relay that speaks TLS with clients: the Redis of the tests is built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening, context, redis_server.port), daemon=True).start()
        yield listening.getsockname()[1]


def accept(listening: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=relay, args=(client, context, port), daemon=True).start()


def relay(client: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with (
        client,
        suppress(OSError),
        context.wrap_socket(client, server_side=True) as ours,
        socket.create_connection(("127.0.0.1", port)) as theirs,
    ):
        back = threading.Thread(target=pump, args=(theirs, ours), daemon=True)
        back.start()
        pump(ours, theirs)
        theirs.shutdown(socket.SHUT_RDWR)
        back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            target.sendall(chunk)


def told(redis_server: EmbeddedRedis, port: int, query: str = "") -> str:
    password = (redis_server.folder / "password").read_text()
    return redis_url(Settings(redis={"url": f"rediss://:{password}@127.0.0.1:{port}/0{query}"}))


def call(url: str, how: str) -> None:
    """Raises TransientError or OperationalError where it is refused."""
    if how == "redis":
        with closing(connect(url)) as client, redis_errors():
            client.ping()
        return
    app = broker_app(url)
    try:
        app.send_task("task", queue="queue", retry=False)
    finally:
        app.close()
        pools.reset()  # kombu keeps one pool for all URLs of a server, whatever they say of TLS


@pytest.mark.parametrize("how", ["redis", "celery"])
def test_certificates_are_verified_and_those_of_a_private_authority_named_in_the_url(
    redis_server: EmbeddedRedis, tls_port: int, certificate: Path, how: str
) -> None:
    with pytest.raises((TransientError, OperationalError), match="CERTIFICATE_VERIFY_FAILED"):
        call(told(redis_server, tls_port), how)
    with warnings.catch_warnings():  # the libraries leave a socket open whose certificate they refuse
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    call(told(redis_server, tls_port, f"?ssl_ca_certs={quote(str(certificate))}"), how)


def test_a_url_that_says_how_certificates_are_verified_stays_as_it_is() -> None:
    for url in ("rediss://here/0?ssl_cert_reqs=none", "redis://here/0", "unix:///socket"):
        assert redis_url(Settings(redis={"url": url})) == url
