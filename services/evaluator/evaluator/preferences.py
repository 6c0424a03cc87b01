"""Preferences of an LLM judge: is a checkpoint's answer better than the reference answer?

The judge is asked about each item twice, with the two answers in either order, since judges favour a position (Zheng et
al., Judging LLM-as-a-judge, arXiv 2306.05685, 2023). Winning in both orders is 1, losing in both 0, anything else 0.5.
A failed request, a reply that is not one of the three letters, and a spent budget are no vote, and the record says
which; ``evaluator.votes`` waits for what passes. The base and every checkpoint are compared with the same reference
answer, so that a record depends on its own checkpoint alone. It imports no torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Literal, NamedTuple

from ratchet.data.example import Example, Message
from ratchet.errors import GenerationError, ReasoningOnly, TransientError
from ratchet.evaluation.record import ItemRecord
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.settings.judging import JudgeSettings
from ratchet.settings.serving import InferenceSettings
from ratchet.tasks.graders import gold

if TYPE_CHECKING:
    from ratchet.inference.http_generator import HttpGenerator

REPLY_TOKENS = 1_024
"""Longest reply: one letter, and what a judge that reasons needs before it."""

MOST_FAILURES = 3
"""Requests in a row that may fail, or be answered by reasoning alone; after that no item waits or pays for it."""

Awaited = Literal["server", "budget"]
"""What a missing vote waits for: a judge that can be reached, or the budget of another day."""

NOT_CONFIGURED = "no judge is configured: set judge.url and judge.model"

_REPLY = re.compile(r"\W*(A|B|TIE)\W*", re.IGNORECASE)


class Vote(NamedTuple):
    """``first`` is 1 if the answer shown first is better, 0 if the second is, 0.5 for a tie; None for the reason.

    ``awaits`` says what a vote can be expected of later; None where the same request would fail again.
    """

    first: float | None
    reason: str | None = None
    awaits: Awaited | None = None


def read_reply(text: str) -> Vote:
    """A judge's reply, which has to be A, B or TIE alone."""
    found = _REPLY.fullmatch(text.strip())
    if found is None:
        return Vote(None, f"unreadable reply: {text.strip()[:80]!r}")
    return Vote({"A": 1.0, "B": 0.0, "TIE": 0.5}[found[1].upper()])


def preference(answer_first: Vote, reference_first: Vote) -> tuple[float | None, str | None]:
    """The preference for the answer, from the votes in both orders, or the reason why there is none."""
    if answer_first.first is None or reference_first.first is None:
        return None, answer_first.reason or reference_first.reason
    both = answer_first.first + (1 - reference_first.first)
    return (1.0 if both == 2 else 0.0 if both == 0 else 0.5), None


def judge_id(settings: JudgeSettings) -> str:
    """A name of the judge for a record's key: votes of different judges are not compared."""
    prompt = hashlib.sha256(settings.template.encode()).hexdigest()[:8]
    return f"judge {settings.model} {prompt}"


def _connect(settings: JudgeSettings, remote: InferenceSettings) -> HttpGenerator | None:
    """The judge's server; None where none is configured."""
    if not settings.url or not settings.model:
        return None
    from ratchet.inference.http_generator import HttpGenerator  # most commands import this module and ask nobody

    return HttpGenerator(settings.url, settings.model, remote.model_copy(update={"api_key": settings.api_key}))


class Judge:
    """Asks one server, within a budget of tokens (None: no limit), and counts what it uses.

    ``awaited`` has the items whose vote is missing for a reason that passes.
    """

    def __init__(self, settings: JudgeSettings, remote: InferenceSettings, budget: int | None):
        self.settings = settings
        self.concurrency = remote.concurrency
        self._budget = budget
        self._failures = 0
        self._failing: Awaited | None = None
        self._has_failed = False
        self._lock = Lock()
        self.awaited: dict[str, Awaited] = {}
        self.requests = self.prompt_tokens = self.answer_tokens = 0
        self._server = _connect(settings, remote)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def is_mute(self) -> bool:
        """Whether requests have failed, and none was replied to."""
        return self._has_failed and not self.requests

    def vote(self, chat: Chat) -> Vote:
        """One request. Never raises."""
        if self._server is None:
            return Vote(None, NOT_CONFIGURED)
        with self._lock:
            if self._budget is not None and self.prompt_tokens + self.answer_tokens >= self._budget:
                awaits: Awaited | None = "budget" if self.settings.daily_tokens else None
                return Vote(None, "the judge's budget of the day is spent (judge.daily_tokens)", awaits)
            if self._failures >= MOST_FAILURES:
                reason = f"the judge failed {MOST_FAILURES} times in a row, and was not asked again"
                return Vote(None, reason, self._failing)
        try:
            (reply,) = self._server.generate(
                [chat], Decoding(max_new_tokens=REPLY_TOKENS), arrived=lambda reply: self._count(chat, reply)
            )
        except (GenerationError, TransientError) as error:
            awaits = "server" if isinstance(error, TransientError) else None
            with self._lock:
                self._has_failed = True
                if isinstance(error, (TransientError, ReasoningOnly)):
                    self._failures, self._failing = self._failures + 1, awaits
            return Vote(None, f"the judge failed: {str(error)[:200]}", awaits)
        with self._lock:
            self._failures = 0
        return Vote(None, "the judge only reasoned") if reply.reasoning_only else read_reply(reply.text)

    def _count(self, chat: Chat, reply: Generation) -> None:
        """Where the server reports no tokens, four characters count as one."""
        with self._lock:
            self.requests += 1
            self.prompt_tokens += reply.prompt_tokens or sum(len(turn.content) for turn in chat) // 4
            self.answer_tokens += reply.answer_tokens or len(reply.text) // 4


def judged(
    records: Sequence[ItemRecord],
    items: Mapping[str, Example],
    judge: Judge,
    progress: Callable[[int, int], object],
) -> tuple[ItemRecord, ...]:
    """The records, those of metric judge with a preference or the reason why there is none."""
    places = [place for place, record in enumerate(records) if record.metric == "judge"]
    found = list(records)

    def compared(place: int) -> ItemRecord:
        return _compared(records[place], items[records[place].item_id], judge)

    with ThreadPoolExecutor(judge.concurrency, "judge") as pool:
        for done, (place, record) in enumerate(zip(places, pool.map(compared, places), strict=True), start=1):
            found[place] = record
            progress(done, len(places))
    return tuple(found)


def _compared(record: ItemRecord, item: Example, judge: Judge) -> ItemRecord:
    template = judge.settings.template
    answer, reference = (record.extracted or "").strip(), gold(item).strip()
    if not answer:
        return record.model_copy(update={"preference": 0.0, "no_vote": None})
    first = judge.vote(_chat(template, item, answer, reference))
    second = judge.vote(_chat(template, item, reference, answer)) if first.first is not None else first
    value, reason = preference(first, second)
    if value is None and second.awaits is not None:
        judge.awaited[record.item_id] = second.awaits
    return record.model_copy(update={"preference": value, "no_vote": reason})


def _chat(template: str, item: Example, first: str, second: str) -> Chat:
    """The request, in which only the template's own placeholders are filled in."""
    parts = {"{question}": _question(item), "{first}": first, "{second}": second}
    text = re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], template)
    return (Message(role="user", content=text),)


def _question(item: Example) -> str:
    turns = item.prompt
    return turns[0].content if len(turns) == 1 else "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
