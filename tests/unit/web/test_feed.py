"""The feed of changes: one reader for all listeners, none without any, and a change reaches every one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.changes import fingerprint
from ratchet.ledger.operator_actions import pause
from ratchet.settings import Settings
from ratchet.web.feed import APART_S, MOST_APART_S, SHARE, Feed

PATIENCE_S = 30.0


@pytest.fixture
def feed(home: Path, ledger: Ledger) -> Iterator[Feed]:
    return Feed(ledger, Settings(home=home), apart_s=0.0)


async def until(events: object, name: str) -> str:
    async for text in events:  # type: ignore[attr-defined]
        if text.startswith(f"event: {name}\n"):
            return str(text)
    raise AssertionError("the feed has ended")


def change(ledger: Ledger, *, paused: bool) -> None:
    with ledger.write() as tx:
        pause(tx, paused=paused)


def test_every_listener_hears_of_a_change_and_the_reader_ends_with_the_last(feed: Feed, ledger: Ledger) -> None:
    async def listen() -> None:
        listeners = [feed.listen() for _ in range(20)]
        for each in listeners:
            await asyncio.wait_for(until(each, "ledger"), PATIENCE_S)  # the present state
        await asyncio.wait_for(until(listeners[0], "training"), PATIENCE_S)  # the reader has read once
        change(ledger, paused=True)
        told = await asyncio.wait_for(asyncio.gather(*(until(each, "ledger") for each in listeners)), PATIENCE_S)
        assert len(set(told)) == 1
        assert feed.listeners == 20
        for each in listeners:
            await each.aclose()  # type: ignore[attr-defined]
        assert feed.listeners == 0
        assert feed._task is None

    asyncio.run(listen())


def test_a_change_between_the_rendering_of_a_page_and_its_first_event_is_told(feed: Feed, ledger: Ledger) -> None:
    """Also where nobody read the ledger in between."""

    async def listen(*, has_reader: bool) -> None:
        others = [feed.listen()] if has_reader else []
        for each in others:
            await asyncio.wait_for(until(each, "training"), PATIENCE_S)
        with ledger.read() as session:
            shown = feed.version_for(session)
        change(ledger, paused=not has_reader)
        mine = feed.listen()
        first = await asyncio.wait_for(until(mine, "ledger"), PATIENCE_S)
        if f'"version":{shown}}}' in first:
            assert first != await asyncio.wait_for(until(mine, "ledger"), PATIENCE_S)
        for each in (mine, *others):
            await each.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen(has_reader=False))
    asyncio.run(listen(has_reader=True))


def test_a_page_that_is_current_is_not_rendered_again(feed: Feed, ledger: Ledger) -> None:
    async def listen() -> None:
        with ledger.read() as session:
            shown = feed.version_for(session)
            assert shown == feed.version_for(session)
        mine = feed.listen()
        assert f'"version":{shown}}}' in await asyncio.wait_for(until(mine, "ledger"), PATIENCE_S)
        await asyncio.wait_for(until(mine, "training"), PATIENCE_S)
        with ledger.read() as session:
            assert shown == feed.version_for(session)
        await mine.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_an_action_is_told_at_once(feed: Feed) -> None:
    async def listen() -> None:
        mine = feed.listen()
        await asyncio.wait_for(until(mine, "ledger"), PATIENCE_S)
        await asyncio.wait_for(until(mine, "training"), PATIENCE_S)  # the reader has read once
        version = feed.version
        feed.poke()
        assert f'"version":{version + 1}' in await asyncio.wait_for(until(mine, "ledger"), PATIENCE_S)
        await mine.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_pages_are_rendered_now_and_then_although_nothing_changes(home: Path, ledger: Ledger) -> None:
    """A worker that is gone changes nothing in the ledger, and must be seen."""
    feed = Feed(ledger, Settings(home=home), quiet_s=0.0)

    async def listen() -> None:
        mine = feed.listen()
        first = await asyncio.wait_for(until(mine, "ledger"), PATIENCE_S)
        assert first != await asyncio.wait_for(until(mine, "ledger"), PATIENCE_S)
        await mine.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_the_reader_outlives_an_error_that_nobody_foresaw(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    read, errors = feed._read, [ValueError("a row of another version")]

    def fails_once() -> object:
        if errors:
            raise errors.pop()
        return read()

    monkeypatch.setattr(feed, "_read", fails_once)

    async def listen() -> None:
        mine = feed.listen()
        await asyncio.wait_for(until(mine, "training"), PATIENCE_S)  # the reader has read again
        assert not errors
        await mine.aclose()  # type: ignore[attr-defined]

    asyncio.run(listen())


def test_nothing_cached_counts_as_current_without_a_reader(feed: Feed) -> None:
    before = feed.version
    feed.touch()
    assert feed.version == before + 1


def test_expensive_pages_are_rendered_less_often_within_limits(home: Path, ledger: Ledger) -> None:
    feed = Feed(ledger, Settings(home=home))
    assert feed.wait_s == APART_S
    feed.add_render_time(2 * APART_S * SHARE)
    assert feed.wait_s == pytest.approx(2 * APART_S)
    feed.add_render_time(1.0)
    assert feed.wait_s == MOST_APART_S


def test_heartbeats_are_no_change(ledger: Ledger) -> None:
    def seen() -> object:
        with ledger.read() as session:
            return fingerprint(session)

    before = seen()
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE claims SET heartbeat_at = heartbeat_at + 1, progress = progress + 1")
        connection.exec_driver_sql("UPDATE workers SET seen_at = seen_at + 1")
    assert seen() == before
    change(ledger, paused=True)
    assert seen() != before
