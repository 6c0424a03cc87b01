"""Worked answers from a larger model behind an OpenAI-compatible server: the family asks, the teacher answers, the
grader checks. A wrong or truncated answer is refused and counted, and is not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import ClassVar

from pydantic import Field, field_validator
from ratchet.data.example import Example, Message
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.inference.http_generator import HttpGenerator
from ratchet.settings.section import Section
from ratchet.tasks import registry
from ratchet.tasks.family import Problem

from datagen.generators.generator import Cell, Draft, GenerationContext, Order

MOST_DRAWS = 300


class Teacher(Section):
    """A model server and how it is asked. Its key is `inference.api_key`; concurrency and retries are `inference`'s.

    A template may name ``{question}``, ``{level}`` and ``{family}``. What is trained on is the bare question with the
    teacher's answer. Set ``daily_tokens`` of the source to limit the cost.
    """

    version: ClassVar[str] = "1"
    base_url: str = Field(min_length=1, description="As https://host/v1.")
    model: str = Field(min_length=1, description="The server's name of the model.")
    tasks: tuple[str, ...] = Field(
        (), description="Your tasks that it writes new rows for; with some it makes no examples of families."
    )
    system: str = Field("", description="System turn of every request; unset, none.")
    templates: Mapping[str, str] = Field(
        default_factory=dict, description="User turn by family; a family without one is asked its bare question."
    )
    temperature: float = Field(0.7, ge=0, le=2, description="Of the answers.")
    max_new_tokens: int = Field(512, ge=1, description="Longest answer; a longer one is refused.")

    @field_validator("templates")
    @classmethod
    def _ask_the_question(cls, templates: Mapping[str, str]) -> Mapping[str, str]:
        for family, template in templates.items():
            try:
                template.format(question="", level=1, family=family)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(f"the template of {family} cannot be filled in: {error!r}") from error
            if "{question}" not in template:
                raise ValueError(f"the template of {family} does not ask the {{question}}")
        return templates

    def drafts(self, order: Order, context: GenerationContext) -> Iterator[Draft]:
        """A group of requests at a time, so that no more is paid for than is taken."""
        problems = _problems(order, context)
        decoding = Decoding(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=order.seed)
        size = context.inference.concurrency
        with HttpGenerator(self.base_url, self.model, context.inference) as server:
            for start in range(0, len(problems), size):
                group = problems[start : start + size]
                paid: list[Generation] = []
                try:
                    answers = server.generate([self.chat(problem) for problem in group], decoding, arrived=paid.append)
                finally:
                    _charge(context, paid)
                context.progress(f"{start + len(group)} of {len(problems)} answers of the teacher")
                for problem, answer in zip(group, answers, strict=True):
                    draft = self._checked(problem, answer, context)
                    if draft is not None:
                        yield draft

    def chat(self, problem: Problem) -> Chat:
        """The chat for the teacher."""
        template = self.templates.get(problem.family, "{question}")
        said = template.format(question=problem.question, level=problem.level, family=problem.family)
        system = (Message(role="system", content=self.system),) if self.system else ()
        return (*system, Message(role="user", content=said))

    def _checked(self, problem: Problem, answer: Generation, context: GenerationContext) -> Draft | None:
        text = answer.text.strip()
        if answer.reasoning_only:
            context.tally.refused["reasoning_only"] += 1
            return None
        if answer.finish_reason == "length":
            context.tally.refused["truncated"] += 1
            return None
        if not registry.get(problem.family).grade(problem, text).correct:
            context.tally.refused["wrong_answer"] += 1
            return None
        seed = {} if problem.seed is None else {"seed": problem.seed}
        example = Example.ask(
            problem.question,
            text,
            family=problem.family,
            level=problem.level,
            key=problem.key,
            gold=problem.gold,
            source=f"teacher:{self.model}",
            **seed,
        )
        return Draft((problem.family, problem.level), problem.key, example.to_line())


def _problems(order: Order, context: GenerationContext) -> list[Problem]:
    """The questions of the order, none held out."""
    random = Random(f"{order.seed} {order.part} teacher")
    cells: dict[Cell, float] = {(family, level): weight for family, level, weight in order.weights}
    problems: list[Problem] = []
    for _ in range(order.count):
        family, level = random.choices(list(cells), list(cells.values()))[0]
        for _ in range(MOST_DRAWS):
            problem = registry.get(family).generate(level, random.getrandbits(48))
            if problem.key not in context.held_out:
                problems.append(problem)
                break
            context.tally.refused["held_out"] += 1
    return problems


def _charge(context: GenerationContext, answers: Sequence[Generation]) -> None:
    if answers:
        tokens = [(answer.prompt_tokens, answer.answer_tokens) for answer in answers]
        context.charge(len(answers), sum(asked for asked, _ in tokens), sum(said for _, said in tokens))
