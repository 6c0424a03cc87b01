"""What the pages share: one rendering for all viewers of a state, and a new one once it has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from fastapi import Request
from fastapi.responses import Response
from jinja2 import DictLoader
from ratchet.ledger import Ledger
from ratchet.settings import Settings
from ratchet.views.topics import Reader
from ratchet.web.site import CACHE_BYTES, MOST_CACHED, Page, Query, Site

VIEWERS = 8


class Counting:
    """A page that counts how often it is read, and takes its time."""

    def __init__(self, home: Path, ledger: Ledger, size: int = 1):
        self.page = Page("counting", "Counting", "/counting", "", self.read)
        self.site = Site(Settings(home=home), ledger, (self.page,))
        self.site.templates.loader = DictLoader({"counting.html": "{{ reads }} {{ 'x' * size }}"})
        self._size, self._lock = size, Lock()
        self.reads, self.is_broken = 0, False

    def read(self, _reader: Reader, _query: Query) -> Mapping[str, Any]:
        if self.is_broken:
            raise ValueError("it is broken")
        with self._lock:
            self.reads += 1
            number = self.reads
        time.sleep(0.05)
        return {"reads": number, "size": self._size}

    def ask(self, query: str = "") -> Response:
        scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/counting", "server": ("localhost", 80)}
        headers = [(b"host", b"localhost"), (b"hx-request", b"true")]
        request = Request({**scope, "query_string": query.encode(), "headers": headers})
        return self.site.show(request, "counting.html", self.page, self.read)

    async def ask_all(self) -> set[bytes]:
        answers = await asyncio.gather(*(asyncio.to_thread(self.ask) for _ in range(VIEWERS)))
        return {bytes(answer.body) for answer in answers}


def test_viewers_of_a_state_share_one_rendering_and_an_action_makes_a_new_one(home: Path, ledger: Ledger) -> None:
    counting = Counting(home, ledger)

    async def view() -> None:
        listener = counting.site.feed.listen()
        await anext(listener)
        assert await counting.ask_all() == {b"1 x"}
        assert await counting.ask_all() == {b"1 x"}
        counting.site.feed.poke()
        assert await counting.ask_all() == {b"2 x"}
        await listener.aclose()  # type: ignore[attr-defined]

    asyncio.run(view())


def test_without_anybody_who_listens_each_request_sees_the_present_state(home: Path, ledger: Ledger) -> None:
    counting = Counting(home, ledger)
    assert [bytes(counting.ask().body) for _ in range(3)] == [b"1 x", b"2 x", b"3 x"]


def test_an_error_is_not_cached(home: Path, ledger: Ledger) -> None:
    counting = Counting(home, ledger)

    async def view() -> None:
        listener = counting.site.feed.listen()
        await anext(listener)
        counting.is_broken = True
        with pytest.raises(ValueError, match="it is broken"):
            await asyncio.to_thread(counting.ask)
        counting.is_broken = False
        assert await counting.ask_all() == {b"1 x"}
        await listener.aclose()  # type: ignore[attr-defined]

    asyncio.run(view())


@pytest.mark.parametrize(("size", "most"), [(1, MOST_CACHED), (CACHE_BYTES // 3, 2), (CACHE_BYTES + 1, 0)])
def test_the_cache_is_limited(home: Path, ledger: Ledger, size: int, most: int) -> None:
    counting = Counting(home, ledger, size)

    async def view() -> None:
        listener = counting.site.feed.listen()
        await anext(listener)
        for n in range(most + 3):
            await asyncio.to_thread(counting.ask, f"n={n}")
        reads = counting.reads
        for n in range(3, most + 3):  # the newest
            await asyncio.to_thread(counting.ask, f"n={n}")
        assert counting.reads == reads
        await asyncio.to_thread(counting.ask, "n=0")
        assert counting.reads == reads + 1
        await listener.aclose()  # type: ignore[attr-defined]

    asyncio.run(view())
