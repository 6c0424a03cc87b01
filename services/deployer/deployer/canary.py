"""The canary, which checks that a loaded checkpoint is the one that was judged, and the alarm on live traffic. Pure.

Three things are compared on a set of canary items: the server's teacher-forced log-probabilities of the judged
answers, the grades of the server's own answers, and, where engine, dtype and GPU class are the same, their text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from statistics import fmean

from ratchet.data.example import Example
from ratchet.evaluation.record import ItemRecord, RecordKey
from ratchet.inference.generator import Generation
from ratchet.serving.protocol import Conditions, Traffic
from ratchet.settings.serving import ServingSettings
from ratchet.tasks.graders import grade_example

CANARY_ITEMS = 32
"""Number of items, the first of a suite, for the check of a loaded checkpoint: one or two seconds of answers. Wrong
weights or a wrong template differ on nearly all of them."""

EPSILON = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.75}
"""Largest accepted difference of one token's log-probability, by the coarser dtype of the two sides.

Measured in bf16 on free text (SmolLM2-135M-Instruct, 628 tokens): the same weights in other batches differ by 0.33 at
most and by 0.03 in the mean, the next checkpoint 30 steps later by 3.5 and 0.27. A logit of 16 to 32 is rounded to
0.125.
"""

MEAN_SHARE = 2 / 15
"""Largest accepted mean difference of all tokens, as a share of epsilon: 0.1 in bf16."""

MIN_COMPARED_SHARE = 0.5
"""Share of items whose tokens must be comparable one by one."""


@dataclass(frozen=True)
class CanaryNumbers:
    """Counts over ``items``: ``compared`` could be compared token by token; ``lost`` and ``won`` are changed grades.

    ``ties`` are texts whose first differing token was, within epsilon, as likely as the judged one; their grades do not
    count.
    """

    items: int
    compared: int
    largest_difference: float
    mean_difference: float
    epsilon: float
    lost: int
    won: int
    same_texts: int
    ties: int
    is_text_required: bool


@dataclass(frozen=True)
class Canary:
    """The outcome of the comparison. ``reason`` is empty if it passed."""

    passed: bool
    reason: str
    numbers: CanaryNumbers


def reply(judged: ItemRecord) -> str | tuple[int, ...]:
    """What the server has to score: the tokens of the record if it has them, else the text."""
    return judged.token_ids or judged.answer


def compare(
    items: Sequence[Example],
    expected: Sequence[ItemRecord],
    answers: Sequence[Generation],
    scores: Sequence[Sequence[float]],
    settings: ServingSettings,
    *,
    judged_under: RecordKey | None = None,
    served_under: Conditions | None = None,
    parse: Callable[[str], str] = str.strip,
) -> Canary:
    """Compare each item's record with the server's answer and with the server's score of the judged reply.

    The texts must be the same only if both conditions are given and equal. ``parse`` is the profile's extract_answer.
    Grades, of graded items whose answer no tie decides, count as worse if more items are lost than won. Without items
    the canary fails.
    """
    epsilon = settings.logprob_epsilon or _epsilon(judged_under, served_under)
    served = [
        None if judged.correct is None else grade_example(item, parse(answer.text)).correct
        for item, judged, answer in zip(items, expected, answers, strict=True)
    ]
    rows = list(zip(expected, answers, scores, strict=True))
    found = [gaps for row in rows if (gaps := _differences(*row)) is not None]
    differences = [gap for gaps in found for gap in gaps]
    same = [judged.answer == answer.text for judged, answer, _ in rows]
    tied = [not equal and _is_tie(*row[:2], epsilon) for row, equal in zip(rows, same, strict=True)]
    grades = [(row.correct, is_right) for row, is_right, tie in zip(expected, served, tied, strict=True) if not tie]
    numbers = CanaryNumbers(
        items=len(rows),
        compared=len(found),
        largest_difference=max(differences, default=nan),
        mean_difference=fmean(differences) if differences else nan,
        epsilon=epsilon,
        lost=grades.count((True, False)),
        won=grades.count((False, True)),
        same_texts=sum(same),
        ties=sum(tied),
        is_text_required=_are_equal(judged_under, served_under),
    )
    reason = _fault(numbers)
    return Canary(passed=reason is None, reason=reason or "", numbers=numbers)


def _fault(n: CanaryNumbers) -> str | None:
    if n.compared < max(1.0, MIN_COMPARED_SHARE * n.items):
        return f"only {n.compared} of {n.items} canary items can be compared token by token"
    if n.largest_difference > n.epsilon:
        return f"a log-probability differs by {n.largest_difference:.3g} from the judged one, over {n.epsilon:g}"
    if n.mean_difference > MEAN_SHARE * n.epsilon:
        return (
            f"log-probabilities differ by {n.mean_difference:.2g} a token in the mean from the judged ones, over "
            f"{MEAN_SHARE * n.epsilon:.2g}"
        )
    if n.lost > n.won:
        return f"grades are worse than judged: {n.lost} of {n.items} items lost, {n.won} won"
    differing = n.items - n.same_texts - n.ties
    if n.is_text_required and differing:
        return f"{differing} of {n.items} answers differ from the judged text"
    return None


def _differences(judged: ItemRecord, answer: Generation, scored: Sequence[float]) -> list[float] | None:
    """The differences of each token's log-probability; None if the tokens cannot be compared.

    If the tokenizer splits a text into other tokens than the model generated, the server's own answer is compared,
    provided that it is the same text. For a text that reached the token limit the scored end token has no counterpart.
    """
    if not judged.token_ids and judged.finish_reason == "length":
        scored = scored[:-1]
    for candidate in (scored, answer.token_logprobs if answer.text == judged.answer else ()):
        if judged.token_logprobs and len(candidate) == len(judged.token_logprobs):
            gaps = [abs(a - b) for a, b in zip(judged.token_logprobs, candidate, strict=True)]
            return gaps if all(map(isfinite, gaps)) else [inf]
    return None


def _is_tie(judged: ItemRecord, answer: Generation, epsilon: float) -> bool:
    """Whether the first differing token was as likely as the judged one; rounding decides such a tie."""
    pairs = enumerate(zip(judged.token_ids, answer.token_ids, strict=False))
    place = next((place for place, (ours, theirs) in pairs if ours != theirs), None)
    if place is None:
        return False
    return abs(judged.token_logprobs[place] - answer.token_logprobs[place]) <= epsilon


def _are_equal(judged: RecordKey | None, served: Conditions | None) -> bool:
    if judged is None or served is None:
        return False
    return (judged.engine, judged.dtype, judged.gpu_class) == (served.engine, served.dtype, served.gpu_class)


def _epsilon(judged: RecordKey | None, served: Conditions | None) -> float:
    dtypes = {side.dtype for side in (judged, served) if side is not None}
    return max((EPSILON.get(dtype, EPSILON["bf16"]) for dtype in dtypes), default=EPSILON["bf16"])


MIN_REQUESTS = 20
"""Minimum number of requests for a meaningful latency quantile."""


MIN_ERRORS = 3
"""Fewer failed requests than these may be those of one client, or of one bad moment."""


def alarm(new: Traffic, before: Traffic | None, settings: ServingSettings) -> str | None:
    """The reason to roll the deployment back, or None. ``before`` is the previous champion's traffic.

    An error rate that the previous champion had as well is its clients' doing, as when they ask for more than the
    server can answer in time.
    """
    usual = before.errors / before.requests if before is not None and before.requests >= MIN_REQUESTS else 0.0
    if new.errors >= MIN_ERRORS and new.errors / new.requests > max(settings.max_error_rate, usual):
        return f"{new.errors} of {new.requests} requests failed, over the limit of {settings.max_error_rate:.0%}"
    if before is None or before.requests < MIN_REQUESTS or new.requests < MIN_REQUESTS:
        return None
    if before.latency_p95_s is None or new.latency_p95_s is None:
        return None
    if new.latency_p95_s > settings.max_latency_ratio * before.latency_p95_s:
        return (
            f"95 % of requests take up to {new.latency_p95_s:.3f} s, {new.latency_p95_s / before.latency_p95_s:.1f} "
            f"times as long as with the previous champion (limit {settings.max_latency_ratio:.1f})"
        )
    return None
