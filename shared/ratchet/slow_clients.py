"""A time limit for requests to arrive, which uvicorn lacks: of a connection that sends nothing, or a byte now and then.

Without one, whoever opens connections and sends nothing takes all that a server may have.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0
"""From the connection, or from the first byte of a later request on it, to the end of the request's head."""
BODY_S = 30.0
"""How far a body may fall behind ``BYTES_PER_S``."""
BYTES_PER_S = 4_000.0


class ImpatientProtocol(H11Protocol):
    """Closes connections whose requests arrive too slowly. Answering one may take as long as it does."""

    _limit: asyncio.TimerHandle | None = None
    _late_at = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.conn.their_state
        super().data_received(data)
        now = self.conn.their_state
        if now is h11.SEND_BODY and before is h11.SEND_BODY and self._limit is not None:
            grown = self._late_at + len(data) / BYTES_PER_S
            self._late_at = min(grown, self.loop.time() + BODY_S)  # speed at first is no credit for later
        elif now is h11.SEND_BODY:
            self._expect(BODY_S)
        elif now is not h11.IDLE:
            self._expect_nothing()
        elif before is not h11.IDLE or self._limit is None:
            self._expect(HEAD_S)

    def _expect(self, within_s: float) -> None:
        self._expect_nothing()
        self._late_at = self.loop.time() + within_s
        self._limit = self.loop.call_at(self._late_at, self._look)

    def _expect_nothing(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _look(self) -> None:
        self._limit = None
        is_awaited = self.cycle is not None and self.cycle.waiting_for_100_continue
        if self.flow.read_paused or is_awaited:  # the server is slow, not the client
            self._expect(BODY_S)
        elif self.loop.time() < self._late_at:
            self._limit = self.loop.call_at(self._late_at, self._look)
        else:
            self.transport.close()
