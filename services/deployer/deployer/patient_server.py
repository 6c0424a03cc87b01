"""The inference server, with progress reported during its long calls: a load by vLLM takes minutes, and is no stall."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Chat, Decoding, Generation, Reply
from ratchet.serving.protocol import Health, InferenceServer, Live, Traffic
from ratchet.systems import Work

CHECK_INTERVAL_S = 5.0
"""How often the server is asked for its health during a long call, and progress is reported if it answers."""

Answer = TypeVar("Answer")


class PatientServer(InferenceServer):
    """Passes calls on to ``server``. While one lasts and the server is healthy, ``work`` reports progress.

    A call raises TransientError once the server's health is no longer reported, and Stopping or ClaimLost as
    ``Work.progress`` does. The server finishes such a call alone, and all calls may be repeated.
    """

    def __init__(self, server: InferenceServer, work: Work, interval_s: float = CHECK_INTERVAL_S):
        self._server = server
        self._work = work
        self._interval_s = interval_s

    def load(self, checkpoint_id: str, path: str, weights: str) -> None:
        self._wait(f"loading {checkpoint_id}", partial(self._server.load, checkpoint_id, path, weights))

    def unload(self, checkpoint_id: str) -> None:
        self._wait(f"unloading {checkpoint_id}", partial(self._server.unload, checkpoint_id))

    def switch(self, checkpoint_id: str, fencing_token: int, certainty: Certainty | None = None) -> None:
        self._server.switch(checkpoint_id, fencing_token, certainty)

    def score(self, checkpoint_id: str, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        call = partial(self._server.score, checkpoint_id, chats, answers)
        return self._wait(f"canary of {checkpoint_id}: scores", call)

    def generate(self, checkpoint_id: str, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        call = partial(self._server.generate, checkpoint_id, chats, decoding)
        return self._wait(f"canary of {checkpoint_id}: answers", call)

    def live(self) -> Live | None:
        return self._server.live()

    def health(self) -> Health:
        return self._server.health()

    def stats(self, checkpoint_id: str) -> Traffic:
        return self._server.stats(checkpoint_id)

    def _wait(self, note: str, call: Callable[[], Answer]) -> Answer:
        return patiently(self._work, note, call, self._interval_s, self._server.health)


def patiently(
    work: Work,
    note: str,
    call: Callable[[], Answer],
    interval_s: float = CHECK_INTERVAL_S,
    check: Callable[[], object] = lambda: None,
) -> Answer:
    """The result of a long call, which runs in its own thread. While it lasts, ``work`` reports progress.

    ``check`` is called before each report; an error of it, or Stopping or ClaimLost, ends the wait but not the call.
    """
    result, started = Future[Answer](), time.monotonic()
    work.progress(note)
    threading.Thread(target=_settle, args=(result, call), name=note, daemon=True).start()
    while True:
        try:
            return result.result(interval_s)
        except TimeoutError:
            if result.done():
                raise
        check()
        work.progress(f"{note}, for {time.monotonic() - started:.0f} s")


def _settle(result: Future[Answer], call: Callable[[], Answer]) -> None:
    try:
        result.set_result(call())
    except BaseException as error:  # noqa: BLE001  (raised again by the thread that waits)
        result.set_exception(error)
