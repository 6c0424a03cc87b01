"""New rows for a user's task from a teacher: it is shown questions of the task and asked for one more, then answers it.

Where answers can be checked, the teacher answers twice, and a row is kept if its two answers agree by the task's own
grader. A question that the task has already, or nearly, is not asked. The rows pass the data gate like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from ratchet.data.example import Example, Message
from ratchet.data.near_duplicates import NearDuplicates, common_runs
from ratchet.errors import DataError
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.inference.http_generator import HttpGenerator
from ratchet.tasks.graders import grade_example, text_key

from datagen.generators.generator import GenerationContext
from datagen.generators.teacher import Teacher

SHOWN = 4
"""Rows that the teacher is shown: enough to see the kind, few enough that it does not copy them."""

LONGEST_QUESTION = 4_000
"""Characters of a proposed question; a longer one is an essay about the task."""

PROPOSING_TEMPERATURE = 1.0
"""Of the proposals, so that they differ; answers have the teacher's own temperature."""

DRY_ROUNDS = 5
"""Rounds in a row without a usable row after which it ends short."""

PROPOSAL = (
    "Here are {count} questions of one kind, each between lines of three dashes.\n\n---\n{questions}\n---\n\n"
    "Write one more question of exactly this kind and form, about something else. "
    "Answer with the new question alone, without dashes, number or answer."
)


@dataclass(frozen=True)
class Asked:
    """What is asked of the teacher: ``count`` rows like the ``seeds``.

    ``label`` makes a row one of the task; ``is_checked``: its grader can compare answers. ``known`` are the keys of the
    task's questions.
    """

    seeds: Sequence[Example]
    count: int
    seed: int
    label: Callable[[Example], Example]
    is_checked: bool
    known: Container[str]


def seeds_of(rows: Sequence[Example]) -> list[Example]:
    """The rows that a teacher can be shown: one question with one answer, and at most a system turn."""
    return [row for row in rows if [m.role for m in row.messages if m.role != "system"] == ["user", "assistant"]]


def new_rows(teacher: Teacher, asked: Asked, context: GenerationContext) -> Iterator[Example]:
    """At most ``count`` rows; fewer where the teacher has no more ideas. Refusals and costs are counted in ``context``.

    Raises TransientError while the server is unavailable, and GenerationError for answers that are none.
    """
    random = Random(f"{asked.seed} teacher rows")
    near, seen = NearDuplicates(common=common_runs(row.question for row in asked.seeds)), set[str]()
    for row in asked.seeds:
        near.remember(near.sketch(row.question))
    made = dry = 0
    with HttpGenerator(teacher.base_url, teacher.model, context.inference) as server:
        session = _Session(teacher, server, context)
        while made < asked.count and dry < DRY_ROUNDS and asked.seeds:
            shown = [
                random.sample(list(asked.seeds), min(SHOWN, len(asked.seeds)))
                for _ in range(min(context.inference.concurrency, asked.count - made))
            ]
            proposed = session.proposals(shown, random.getrandbits(31))
            fresh = [pair for pair in proposed if _is_new(*pair, asked, context, near, seen)]
            before = made
            for row in session.answered(fresh, asked, random):
                yield row
                made += 1
            dry = dry + 1 if made == before else 0
            context.progress(f"{made} of {asked.count} new rows of the teacher")


@dataclass(frozen=True)
class _Session:
    """The teacher's server, and who counts what it answers."""

    teacher: Teacher
    server: HttpGenerator
    context: GenerationContext

    def proposals(self, shown: Sequence[Sequence[Example]], seed: int) -> list[tuple[Sequence[Example], str]]:
        """A new question for each group of rows, with the group; without those that are no question."""
        chats = [self._chat(PROPOSAL.format(count=len(rows), questions=_joined(rows))) for rows in shown]
        temperature = max(self.teacher.temperature, PROPOSING_TEMPERATURE)
        texts = self._texts(chats, temperature, seed)
        return [(rows, text.strip("- \n")) for rows, text in zip(shown, texts, strict=True) if text is not None]

    def answered(
        self, questions: Sequence[tuple[Sequence[Example], str]], asked: Asked, random: Random
    ) -> Iterator[Example]:
        """The rows whose answer can be used."""
        chats = [self._chat(question, rows) for rows, question in questions]
        first = self._texts(chats, self.teacher.temperature, random.getrandbits(31))
        second = self._texts(chats, self.teacher.temperature, random.getrandbits(31)) if asked.is_checked else first
        for (rows, question), answer, again in zip(questions, first, second, strict=True):
            if answer is None or again is None:
                continue
            row = asked.label(_row(rows, question, answer, source=f"teacher:{self.teacher.model}"))
            if asked.is_checked and not _agree(row, answer, again):
                self.context.tally.refused["not_agreed"] += 1
            else:
                yield row

    def _chat(self, question: str, rows: Sequence[Example] = ()) -> Chat:
        """The question after rows with their answers."""
        turns: list[Message] = []
        if self.teacher.system:
            turns.append(Message(role="system", content=self.teacher.system))
        for row in rows:
            turns += [Message(role="user", content=row.question), Message(role="assistant", content=str(row.answer))]
        return (*turns, Message(role="user", content=question))

    def _texts(self, chats: Sequence[Chat], temperature: float, seed: int) -> list[str | None]:
        """The answers; None, counted, for one that is empty or was cut off."""
        if not chats:
            return []
        decoding = Decoding(temperature=temperature, max_new_tokens=self.teacher.max_new_tokens, seed=seed)
        paid: list[Generation] = []
        try:
            answers = self.server.generate(chats, decoding, arrived=paid.append)
        finally:
            if paid:
                prompt, answer = sum(p.prompt_tokens for p in paid), sum(p.answer_tokens for p in paid)
                self.context.charge(len(paid), prompt, answer)
        return [self._usable(answer) for answer in answers]

    def _usable(self, answer: Generation) -> str | None:
        text = answer.text.strip()
        if answer.reasoning_only:
            reason = "reasoning_only"
        elif answer.finish_reason == "length":
            reason = "truncated"
        elif not text:
            reason = "empty"
        else:
            return text
        self.context.tally.refused[reason] += 1
        return None


def _row(like: Sequence[Example], question: str, answer: str, **metadata: str) -> Example:
    """The question with its answer, under the system turn of the rows that it is like."""
    row = Example.ask(question, answer, **metadata)
    system = tuple(message for message in like[0].messages if message.role == "system")
    return row.model_copy(update={"messages": (*system, *row.messages)})


def _is_new(
    like: Sequence[Example],
    question: str,
    asked: Asked,
    context: GenerationContext,
    near: NearDuplicates,
    seen: set[str],
) -> bool:
    """Whether neither the task, the held-out rows nor this batch has it, nor nearly; remembers it if so."""
    refused = context.tally.refused
    key = text_key(_row(like, question, ""))
    if not question or len(question) > LONGEST_QUESTION:
        refused["no_question"] += 1
    elif key in context.held_out:
        refused["held_out"] += 1
    elif key in asked.known or key in seen or near.is_repeat(sketch := near.sketch(question)):
        refused["repeated"] += 1
    else:
        seen.add(key)
        near.remember(sketch)
        return True
    return False


def _agree(row: Example, answer: str, again: str) -> bool:
    """Whether the grader takes the second answer for the first, and the first as an answer at all."""
    try:
        return grade_example(row, answer).correct and grade_example(row, again).correct
    except DataError:
        return False


def _joined(rows: Sequence[Example]) -> str:
    return "\n---\n".join(row.question for row in rows)
