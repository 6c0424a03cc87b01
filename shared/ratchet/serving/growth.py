"""The tokens of an answer on their way from the batch's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ratchet.inference.generator import Generation

if TYPE_CHECKING:
    from ratchet.inference.sampling import Answer

_Token = tuple[int, int, float]
"""Place in the answer, token id, log-probability."""


class TokenStream:
    """``put`` and ``end`` are called by the batch, ``lengths`` is read by the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self._loop = loop
        self._tokens: asyncio.Queue[_Token | None] = asyncio.Queue()

    def put(self, answer: Answer) -> None:
        token = (len(answer.token_ids) - 1, answer.token_ids[-1], answer.logprobs[-1])
        self._loop.call_soon_threadsafe(self._tokens.put_nowait, token)

    def end(self, _future: Future[Generation]) -> None:
        self._loop.call_soon_threadsafe(self._tokens.put_nowait, None)

    async def lengths(self) -> AsyncIterator[int]:
        """The number of tokens so far, each time that it has changed, until the end."""
        while (token := await self._tokens.get()) is not None:
            self._take(token)
            while not self._tokens.empty():
                waiting = self._tokens.get_nowait()
                if waiting is None:
                    return
                self._take(waiting)
            yield len(self.token_ids)

    def _take(self, token: _Token) -> None:
        place, token_id, logprob = token
        del self.token_ids[place:], self.logprobs[place:]
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
