"""Requests that are answered together over a real model: coming, leaving, limits, and ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.decode import Answer
from ratchet.inference.generator import Decoding
from ratchet.inference.local import LocalGenerator
from ratchet.serving.batcher import Batcher
from ratchet.serving.refusal import Refusal, Retired
from ratchet.serving.ticket import Growth, Ticket
from ratchet.watchdog import Watchdog

CLOSE_S = 60.0


@pytest.fixture(scope="module")
def generator(blue: Path) -> LocalGenerator:
    return LocalGenerator.load(blue)


def make_ticket(
    generator: LocalGenerator,
    text: str = "1+1=",
    tokens: int = 4,
    on_growth: Growth | None = None,
    timeout_s: float = 60,
) -> Ticket:
    prompt = generator.prompt((Message(role="user", content=text),), Decoding(max_new_tokens=tokens))
    return Ticket(prompt, timeout_s, on_growth)


def make_batcher(generator: LocalGenerator, max_queue: int = 100, watchdog: Watchdog | None = None) -> Batcher:
    limits: dict[str, Any] = {"max_batch": 8, "wait_s": 0.001, "max_queue": max_queue, "limit_s": CLOSE_S}
    return Batcher("cp-1", generator, **limits, watchdog=watchdog or Watchdog())


class Holding:
    """Keeps the batch busy inside the first token of a ticket until it is let go."""

    def __init__(self, generator: LocalGenerator, batcher: Batcher):
        self._entered, self._let_go = threading.Event(), threading.Event()
        batcher.submit(make_ticket(generator, tokens=1, on_growth=self._hold))
        assert self._entered.wait(30)

    def _hold(self, _answer: Answer) -> None:
        self._entered.set()
        self._let_go.wait(30)

    def let_go(self) -> None:
        self._let_go.set()


def test_answers_are_those_of_the_generator(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    texts = [f"{number}+{number}=" for number in range(20)]
    tickets = [make_ticket(generator, text) for text in texts]
    for ticket in tickets:
        batcher.submit(ticket)
    found = [ticket.future.result(60).token_ids for ticket in tickets]
    chats = [(Message(role="user", content=text),) for text in texts]
    assert found == [g.token_ids for g in generator.generate(chats, Decoding(max_new_tokens=4))]
    assert batcher.close(CLOSE_S)


def test_a_short_answer_does_not_wait_for_a_long_one_in_its_batch(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    short = make_ticket(generator, tokens=1)
    done_when_long_grew: list[bool] = []
    long = make_ticket(generator, tokens=8, on_growth=lambda _: done_when_long_grew.append(short.future.done()))
    batcher.submit(short)
    batcher.submit(long)
    holding.let_go()
    long.future.result(60)
    assert done_when_long_grew[-1]
    assert batcher.close(CLOSE_S)


def test_a_full_queue_asks_to_come_again(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator, max_queue=2)
    holding = Holding(generator, batcher)
    waiting = [make_ticket(generator) for _ in range(2)]
    for ticket in waiting:
        batcher.submit(ticket)
    with pytest.raises(Refusal, match="2 requests are waiting") as caught:
        batcher.submit(make_ticket(generator))
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    holding.let_go()
    assert all(ticket.future.result(60) for ticket in waiting)
    assert batcher.close(CLOSE_S)


def test_closing_answers_what_waits_and_takes_no_more(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    waiting = make_ticket(generator)
    batcher.submit(waiting)
    closing = threading.Thread(target=batcher.close, args=(CLOSE_S,))
    closing.start()
    holding.let_go()
    closing.join(60)
    assert waiting.future.result(0).finish_reason == "length"
    with pytest.raises(Retired, match="is being unloaded"):
        batcher.submit(make_ticket(generator))


def test_a_cancelled_row_leaves_its_batch(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    lengths: list[int] = []

    def hang_up(answer: Answer) -> None:
        lengths.append(len(answer.token_ids))
        ticket.cancel()

    ticket = make_ticket(generator, tokens=500, on_growth=hang_up)
    batcher.submit(ticket)
    assert batcher.close(CLOSE_S)
    assert lengths == [1]


def test_what_waited_too_long_is_given_up_unanswered(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    grown: list[Answer] = []
    late = make_ticket(generator, timeout_s=0.0, on_growth=grown.append)
    batcher.submit(late)
    holding.let_go()
    with pytest.raises(Refusal, match="no answer within"):
        late.future.result(60)
    assert grown == []
    assert batcher.close(CLOSE_S)


def test_a_long_answer_keeps_no_one_waiting(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    began = threading.Event()
    long = make_ticket(generator, tokens=1000, on_growth=lambda _: began.set())
    batcher.submit(long)
    assert began.wait(60)
    newcomers = [make_ticket(generator, f"{number}+1=") for number in range(3)]
    for ticket in newcomers:
        batcher.submit(ticket)
        assert ticket.future.result(60)
    assert not long.future.done()
    long.cancel()
    assert batcher.close(CLOSE_S)


def test_first_come_first_served(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    order: list[int] = []
    tickets = [
        make_ticket(generator, tokens=1, on_growth=lambda _, number=number: order.append(number))
        for number in range(30)
    ]
    for ticket in tickets:
        batcher.submit(ticket)
    holding.let_go()
    for ticket in tickets:
        ticket.future.result(60)
    assert order == sorted(order)
    assert batcher.close(CLOSE_S)


def test_whose_event_loop_is_closed_ends_no_answer_but_its_own(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)

    def fail(_answer: Answer) -> None:
        raise RuntimeError("Event loop is closed")

    holding = Holding(generator, batcher)
    failing, other = make_ticket(generator, on_growth=fail), make_ticket(generator)
    batcher.submit(failing)
    batcher.submit(other)
    holding.let_go()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        failing.future.result(60)
    assert other.future.result(60).finish_reason == "length"
    assert batcher.close(CLOSE_S)


def test_a_failing_batch_is_told_to_all_its_clients_and_the_next_is_answered(blue: Path) -> None:
    generator = LocalGenerator.load(blue)
    norm = generator._loaded.model.model.norm.weight
    healthy = norm.clone()
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    norm.fill_(float("nan"))
    tickets = [make_ticket(generator) for _ in range(2)]
    for ticket in tickets:
        batcher.submit(ticket)
    holding.let_go()
    for ticket in tickets:
        with pytest.raises(BrokenCheckpoint, match="NaN"):
            ticket.future.result(60)
    norm.copy_(healthy)
    after = make_ticket(generator)
    batcher.submit(after)
    assert after.future.result(60).finish_reason == "length"
    assert batcher.close(CLOSE_S)


def test_clients_that_hang_up_while_they_wait_do_not_end_the_thread(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    for _ in range(50):
        gone = make_ticket(generator)
        gone.cancel()
        batcher.submit(gone)
        late = make_ticket(generator, timeout_s=0.0)
        batcher.submit(late)
        with pytest.raises(Refusal, match="no answer within"):
            late.future.result(60)
    after = make_ticket(generator)
    batcher.submit(after)
    assert after.future.result(60).finish_reason == "length"
    assert batcher.close(CLOSE_S)


def test_closing_does_not_wait_for_a_batch_that_stands_still(generator: LocalGenerator) -> None:
    watchdog = Watchdog()
    batcher = make_batcher(generator, watchdog=watchdog)
    holding = Holding(generator, batcher)
    assert not batcher.close(0.01)
    holding.let_go()
    assert batcher.close(CLOSE_S)
    assert watchdog.problem is None


def test_those_who_wait_too_long_leave_their_places_in_a_full_queue(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator, max_queue=2)
    holding = Holding(generator, batcher)
    for _ in range(2):
        batcher.submit(make_ticket(generator, timeout_s=0.0))
    fresh = make_ticket(generator)
    batcher.submit(fresh)
    holding.let_go()
    assert fresh.future.result(60)
    assert batcher.close(CLOSE_S)
