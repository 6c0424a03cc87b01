"""Requests on their way to vLLM: a way on which nothing goes on any longer is told of, and keeps no end waiting."""

from __future__ import annotations

import threading
from typing import Any

from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Prompt
from ratchet.serving.ticket import Ticket
from ratchet.serving.vllm.forwarder import Forwarder
from ratchet.watchdog import Watchdog

from tests.support.workers import wait_until

LIMIT_S = 5.0


class Clock:
    """A time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Hanging:
    """Stands where vLLM would be, and answers once it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def answer(self, ticket: Ticket) -> None:
        self.let_go.wait(60)
        ticket.fail(ValueError("late"))


def ticket() -> Ticket:
    return Ticket(Prompt((1, 2), 4, Decoding()), timeout_s=60)


def test_requests_that_hang_stand_still_and_none_that_are_answered_or_awaited() -> None:
    clock, vllm = Clock(), Hanging()
    watchdog = Watchdog(clock=clock)
    generator: Any = vllm
    forwarder = Forwarder("cp-1", generator, max_batch=2, wait_s=0.0, max_queue=10, limit_s=LIMIT_S, watchdog=watchdog)

    def look(seconds: int) -> str | None:
        for _ in range(seconds):
            clock.now += 1.0
            watchdog.look()
        return watchdog.problem

    assert look(1_000) is None
    hanging = ticket()
    forwarder.submit(hanging)
    assert look(11) is None
    assert look(1) == "the queue of cp-1 to vLLM has stood still for more than 10 s"
    assert not forwarder.close(0.01)
    vllm.let_go.set()
    wait_until(lambda: forwarder.under_way == 0)
    assert look(1_000) is None
    assert forwarder.close(60)
