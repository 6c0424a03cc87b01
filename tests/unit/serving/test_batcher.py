"""Requests that are answered together over a real model: coming, leaving, limits, and ends."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.sampling import Answer
from ratchet.serving.batcher import Batcher
from ratchet.serving.http_errors import ApiError, BeingUnloaded
from ratchet.serving.pending import OnToken, PendingRequest, PendingScore
from ratchet.watchdog import Watchdog

CLOSE_S = 60.0

ROUNDING = 1e-4
"""In fp32 log-probabilities may depend by this much on what else is in the batch, since a CPU's kernels depend on its
shape."""


@pytest.fixture(scope="module")
def generator(blue: Path) -> LocalGenerator:
    return LocalGenerator.load(blue)


def make_pending(
    generator: LocalGenerator,
    text: str = "1+1=",
    tokens: int = 4,
    on_token: OnToken | None = None,
    timeout_s: float = 60,
) -> PendingRequest:
    prompt = generator.prompt((Message(role="user", content=text),), Decoding(max_new_tokens=tokens))
    return PendingRequest(prompt, timeout_s, on_token)


def make_batcher(generator: LocalGenerator, watchdog: Watchdog | None = None, **others: Any) -> Batcher:
    limits: dict[str, Any] = {"max_batch": 8, "wait_s": 0.001, "max_queue": 100, "limit_s": CLOSE_S}
    return Batcher("cp-1", generator, **{**limits, **others}, watchdog=watchdog or Watchdog())


class Holding:
    """Blocks the batch in the first token of a pending request until it is released."""

    def __init__(self, generator: LocalGenerator, batcher: Batcher):
        self._entered, self._let_go = threading.Event(), threading.Event()
        batcher.submit(make_pending(generator, tokens=1, on_token=self._hold))
        assert self._entered.wait(30)

    def _hold(self, _answer: Answer) -> None:
        self._entered.set()
        self._let_go.wait(30)

    def let_go(self) -> None:
        self._let_go.set()


def test_answers_are_those_of_the_generator(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    texts = [f"{number}+{number}=" for number in range(20)]
    requests = [make_pending(generator, text) for text in texts]
    for pending in requests:
        batcher.submit(pending)
    found = [pending.future.result(60).token_ids for pending in requests]
    chats = [(Message(role="user", content=text),) for text in texts]
    assert found == [g.token_ids for g in generator.generate(chats, Decoding(max_new_tokens=4))]
    assert batcher.close(CLOSE_S)


def test_a_short_answer_does_not_wait_for_a_long_one_in_its_batch(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    short = make_pending(generator, tokens=1)
    done_when_long_grew: list[bool] = []
    long = make_pending(generator, tokens=8, on_token=lambda _: done_when_long_grew.append(short.future.done()))
    batcher.submit(short)
    batcher.submit(long)
    holding.let_go()
    long.future.result(60)
    assert done_when_long_grew[-1]
    assert batcher.close(CLOSE_S)


def test_a_full_queue_refuses_with_retry(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator, max_queue=2)
    holding = Holding(generator, batcher)
    waiting = [make_pending(generator) for _ in range(2)]
    for pending in waiting:
        batcher.submit(pending)
    with pytest.raises(ApiError, match="2 requests are waiting") as caught:
        batcher.submit(make_pending(generator))
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    holding.let_go()
    assert all(pending.future.result(60) for pending in waiting)
    assert batcher.close(CLOSE_S)


def test_closing_answers_waiting_requests_and_accepts_no_more(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    waiting = make_pending(generator)
    batcher.submit(waiting)
    closing = threading.Thread(target=batcher.close, args=(CLOSE_S,))
    closing.start()
    holding.let_go()
    closing.join(60)
    assert waiting.future.result(0).finish_reason == "length"
    with pytest.raises(BeingUnloaded, match="is being unloaded"):
        batcher.submit(make_pending(generator))


def test_a_cancelled_row_leaves_its_batch(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    lengths: list[int] = []

    def hang_up(answer: Answer) -> None:
        lengths.append(len(answer.token_ids))
        pending.cancel()

    pending = make_pending(generator, tokens=500, on_token=hang_up)
    batcher.submit(pending)
    assert batcher.close(CLOSE_S)
    assert lengths == [1]


def test_a_request_that_waited_too_long_is_not_answered(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    grown: list[Answer] = []
    late = make_pending(generator, timeout_s=0.0, on_token=grown.append)
    batcher.submit(late)
    holding.let_go()
    with pytest.raises(ApiError, match="no answer within"):
        late.future.result(60)
    assert grown == []
    assert batcher.close(CLOSE_S)


def test_a_long_answer_does_not_delay_others(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    began = threading.Event()
    long = make_pending(generator, tokens=1000, on_token=lambda _: began.set())
    batcher.submit(long)
    assert began.wait(60)
    newcomers = [make_pending(generator, f"{number}+1=") for number in range(3)]
    for pending in newcomers:
        batcher.submit(pending)
        assert pending.future.result(60)
    assert not long.future.done()
    long.cancel()
    assert batcher.close(CLOSE_S)


def test_first_come_first_served(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    order: list[int] = []
    requests = [
        make_pending(generator, tokens=1, on_token=lambda _, number=number: order.append(number))
        for number in range(30)
    ]
    for pending in requests:
        batcher.submit(pending)
    holding.let_go()
    for pending in requests:
        pending.future.result(60)
    assert order == sorted(order)
    assert batcher.close(CLOSE_S)


def test_a_closed_event_loop_ends_only_its_own_answer(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)

    def fail(_answer: Answer) -> None:
        raise RuntimeError("Event loop is closed")

    holding = Holding(generator, batcher)
    failing, other = make_pending(generator, on_token=fail), make_pending(generator)
    batcher.submit(failing)
    batcher.submit(other)
    holding.let_go()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        failing.future.result(60)
    assert other.future.result(60).finish_reason == "length"
    assert batcher.close(CLOSE_S)


def test_a_failing_batch_fails_all_its_requests_and_the_next_is_answered(blue: Path) -> None:
    generator = LocalGenerator.load(blue)
    norm = generator._loaded.model.model.norm.weight
    healthy = norm.clone()
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    norm.fill_(float("nan"))
    requests = [make_pending(generator) for _ in range(2)]
    for pending in requests:
        batcher.submit(pending)
    holding.let_go()
    for pending in requests:
        with pytest.raises(BrokenCheckpoint, match="NaN"):
            pending.future.result(60)
    norm.copy_(healthy)
    after = make_pending(generator)
    batcher.submit(after)
    assert after.future.result(60).finish_reason == "length"
    assert batcher.close(CLOSE_S)


def test_clients_that_hang_up_while_they_wait_do_not_end_the_thread(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    for _ in range(50):
        gone = make_pending(generator)
        gone.cancel()
        batcher.submit(gone)
        late = make_pending(generator, timeout_s=0.0)
        batcher.submit(late)
        with pytest.raises(ApiError, match="no answer within"):
            late.future.result(60)
    after = make_pending(generator)
    batcher.submit(after)
    assert after.future.result(60).finish_reason == "length"
    assert batcher.close(CLOSE_S)


def test_closing_does_not_wait_for_a_stalled_batch(generator: LocalGenerator) -> None:
    watchdog = Watchdog()
    batcher = make_batcher(generator, watchdog=watchdog)
    holding = Holding(generator, batcher)
    assert not batcher.close(0.01)
    holding.let_go()
    assert batcher.close(CLOSE_S)
    assert watchdog.problem is None


def test_timed_out_requests_free_their_places_in_the_queue(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator, max_queue=2)
    holding = Holding(generator, batcher)
    for _ in range(2):
        batcher.submit(make_pending(generator, timeout_s=0.0))
    fresh = make_pending(generator)
    batcher.submit(fresh)
    holding.let_go()
    assert fresh.future.result(60)
    assert batcher.close(CLOSE_S)


@pytest.mark.parametrize(
    ("limits", "stall_s"),
    [({"limit_s": 10.0}, 600.0), ({"limit_s": 300.0}, 900.0), ({"limit_s": 300.0, "stall_s": 5.0}, 5.0)],
)
def test_a_step_may_outlast_the_request_it_is_for(
    generator: LocalGenerator, limits: dict[str, float], stall_s: float
) -> None:
    """A short time limit of a request, whose prompt then takes long on a slow machine, ends no server."""
    now = 0.0
    watchdog = Watchdog(tick_s=1_000.0, clock=lambda: now)
    batcher = make_batcher(generator, watchdog, **limits)
    holding = Holding(generator, batcher)
    watchdog.check()
    now = stall_s
    assert watchdog.check() is None
    now += 1.0
    assert watchdog.check() == f"thread batcher-cp-1 has stood still for more than {stall_s:g} s"
    holding.let_go()
    assert batcher.close(CLOSE_S)


class Ending:
    """A model whose batch ends its thread once it is released."""

    def __init__(self) -> None:
        self.is_let_go = threading.Event()

    def continuous_batch(self, _max_rows: int) -> Any:
        self.is_let_go.wait(30)
        raise SystemExit


def test_an_ending_thread_accepts_no_request(generator: LocalGenerator) -> None:
    """Its end is logged between the last look into the queue and the moment at which the watchdog knows of it."""
    ending: Any = Ending()
    batcher, refused, is_asked = make_batcher(ending), list[ApiError](), threading.Event()

    class Asking(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            try:
                batcher.submit(make_pending(generator))
            except ApiError as error:
                refused.append(error)
            is_asked.set()

    logger, asking = logging.getLogger("ratchet.watchdog"), Asking()
    logger.addHandler(asking)
    ending.is_let_go.set()
    assert is_asked.wait(30)
    logger.removeHandler(asking)
    assert [(api_error.status, api_error.code) for api_error in refused] == [(503, "stalled")]


def test_texts_are_scored_between_the_tokens_of_answers(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    holding = Holding(generator, batcher)
    text = generator.codec.text_ids("1+1=2")
    scores = [PendingScore(text, 60, top) for top in (0, 2)]
    answer = make_pending(generator)
    for pending in (*scores, answer):
        batcher.submit(pending)
    holding.let_go()
    [expected] = generator.score_texts([text], 2)
    plain, with_top = [pending.future.result(CLOSE_S) for pending in scores]
    assert plain.logprobs == with_top.logprobs
    assert with_top.logprobs[1:] == pytest.approx(expected.logprobs[1:], abs=ROUNDING)
    for ours, alone in zip(with_top.top, expected.top, strict=True):
        assert dict(ours) == pytest.approx(dict(alone), abs=ROUNDING)
    assert answer.future.result(CLOSE_S).text == generator.answer([answer.prompt])[0].text
    assert batcher.close(CLOSE_S)


def test_a_text_whose_client_has_gone_is_not_scored(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator, max_queue=1)
    holding = Holding(generator, batcher)
    gone = PendingScore(generator.codec.text_ids("1"), 60)
    batcher.submit(gone)
    with pytest.raises(ApiError, match="requests are waiting"):
        batcher.submit(PendingScore(generator.codec.text_ids("2"), 60))
    gone.cancel()
    kept = PendingScore(generator.codec.text_ids("2"), 60)
    batcher.submit(kept)
    holding.let_go()
    assert kept.future.result(CLOSE_S).logprobs == (None,)
    assert batcher.close(CLOSE_S)


def test_a_text_that_cannot_be_scored_fails_alone(generator: LocalGenerator) -> None:
    batcher = make_batcher(generator)
    wrong = PendingScore((1, 10**6), 60)
    batcher.submit(wrong)
    with pytest.raises(Exception, match="index"):
        wrong.future.result(CLOSE_S)
    answer = make_pending(generator)
    batcher.submit(answer)
    assert answer.future.result(CLOSE_S).token_ids
    assert batcher.close(CLOSE_S)
