"""Hostile HTTP beside ordinary clients: hang-ups in every phase, slow senders, huge and deep bodies, foreign Host and
Origin headers on the admin routes.

An ordinary client asks the model all the while. It must be answered, since nothing else strikes in the same round, and
what is hostile must be refused.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
from ratchet.serving.server_home import client_token

from benchmarks.chaos.faults.fault import Fault
from benchmarks.chaos.live_run import LiveRun, Stuck

ANSWER_S = 60.0
CHAT = "/v1/chat/completions"
QUESTION = json.dumps(
    {"model": "ratchet", "messages": [{"role": "user", "content": "reverse:abc"}], "max_tokens": 12}
).encode()
STREAMED = json.dumps({**json.loads(QUESTION), "stream": True, "max_tokens": 200}).encode()
SENDERS = 30
HUGE_BYTES = 50_000_000
DEPTH = 100_000

Attack = Callable[[str, LiveRun, random.Random], str]


class OrdinaryClient:
    """Asks the model in a thread for the length of the block, and keeps whatever was wrong."""

    def __init__(self, url: str):
        self._url, self._over = url, threading.Event()
        self.answers, self.faults = 0, list[str]()
        self._thread = threading.Thread(target=self._ask, name="ordinary client")

    def __enter__(self) -> OrdinaryClient:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        deadline = time.monotonic() + ANSWER_S
        while not self.answers and not self.faults and time.monotonic() < deadline:
            time.sleep(0.02)
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        headers = {"content-type": "application/json"}
        with httpx.Client(timeout=ANSWER_S, trust_env=False) as http:
            while not self._over.is_set():
                try:
                    response = http.post(self._url + CHAT, content=QUESTION, headers=headers)
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))
                    return
                if response.status_code != 200:
                    self.faults.append(f"{response.status_code}: {response.text[:200]}")
                    return
                self.answers += 1


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=ANSWER_S)


def _head(length: int, path: str = CHAT) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def hang_up(url: str, _run: LiveRun, dice: random.Random) -> str:
    """After connecting, amid the head, amid the body, after the request, and amid a streamed answer."""
    head = _head(len(STREAMED))
    whole = head + STREAMED
    phases = [b"", head[: dice.randrange(1, len(head))], head + STREAMED[: dice.randrange(1, len(STREAMED))], whole]
    for phase in phases * 3:
        with _connected(url) as connection:
            connection.sendall(phase)
    for _ in range(3):
        with _connected(url) as connection:
            connection.sendall(whole)
            connection.recv(dice.choice((1, 300)))
    return f"hung up {3 * len(phases) + 3} times"


def send_slowly(url: str, _run: LiveRun, dice: random.Random) -> str:
    """Connections that send a byte now and then, and never end."""
    whole = _head(len(QUESTION)) + QUESTION
    with ExitStack() as stack:
        connections = [stack.enter_context(_connected(url)) for _ in range(SENDERS)]
        for step in range(8):
            for connection in connections:
                with suppress(OSError):  # the server may have lost its patience
                    connection.sendall(whole[step : step + 1])
            time.sleep(dice.uniform(0.05, 0.2))
    return f"{SENDERS} slow senders"


def send_huge(url: str, _run: LiveRun, dice: random.Random) -> str:
    """50 MB, with a length or in chunks."""
    content = b'{"model": "ratchet", "messages": "' + b"x" * HUGE_BYTES + b'"}'
    is_chunked = dice.random() < 0.5
    status = _posted(url, iter([content]) if is_chunked else content)
    return _refused(f"50 MB {'in chunks' if is_chunked else 'with a length'}", status)


def nest_deeply(url: str, _run: LiveRun, dice: random.Random) -> str:
    opening, closing = dice.choice((("[", "]"), ('{"a":', "}")))
    core = "[]" if opening == "[" else "1"
    content = f'{{"model": "ratchet", "messages": {opening * DEPTH}{core}{closing * DEPTH}}}'
    return _refused(f"{DEPTH} levels of {opening}", _posted(url, content.encode()))


def foreign_headers(url: str, run: LiveRun, dice: random.Random) -> str:
    """The admin routes with a right token from a foreign page or under a foreign name, and without a token."""
    token = client_token(run.settings.serving, run.settings.serving_home).get_secret_value()
    bearer = {"authorization": f"Bearer {token}"}
    tried = []
    for headers in (
        {**bearer, "host": "evil.example.org"},
        {**bearer, "origin": "https://evil.example.org"},
        {"authorization": "Bearer wrong"},
        {},
    ):
        for method, path in (("GET", "/admin/ping"), ("POST", f"/admin/{dice.choice(('load', 'switch', 'unload'))}")):
            answered = httpx.request(
                method, url + path, headers=headers, content=b"{}", timeout=ANSWER_S, trust_env=False
            )
            tried.append(_refused(f"{path} {sorted(headers)}", answered.status_code))
    page = run.page()
    if page is not None:
        for headers in ({"host": "evil.example.org"}, {"origin": "https://evil.example.org"}):
            answered = httpx.post(f"{page}/live/freeze", headers=headers, timeout=ANSWER_S, trust_env=False)
            tried.append(_refused(f"the page with {sorted(headers)}", answered.status_code))
    return f"{len(tried)} foreign requests refused"


def _posted(url: str, content: object) -> int:
    """The status, or 0 where the server closed the connection amid the body, which refuses it too."""
    try:
        response = httpx.post(
            url + CHAT,
            content=content,  # type: ignore[arg-type]
            headers={"content-type": "application/json"},
            timeout=ANSWER_S,
            trust_env=False,
        )
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return 0
    return response.status_code


def _refused(what: str, status: int) -> str:
    if status != 0 and not 400 <= status < 500:
        raise Stuck(f"{what} was answered with {status}")
    return f"{what}: {status or 'hung up'}"


def _beside_client(attack: Attack) -> Callable[[LiveRun, random.Random], str]:
    def strike(run: LiveRun, dice: random.Random) -> str:
        url = run.endpoint()
        if url is None or run.served() is None:
            raise Stuck("no model is served")
        with OrdinaryClient(url) as client:
            did = attack(url, run, dice)
        if client.faults:
            raise Stuck(f"an ordinary client beside it was not answered: {client.faults[0]}")
        return f"{did}; {client.answers} ordinary answers beside it"

    return strike


HTTP_FAULTS = tuple(
    Fault(name, _beside_client(attack))
    for name, attack in {
        "clients hang up in every phase": hang_up,
        "slow senders": send_slowly,
        "bodies of 50 MB": send_huge,
        "deeply nested JSON": nest_deeply,
        "foreign Host and Origin": foreign_headers,
    }.items()
)
