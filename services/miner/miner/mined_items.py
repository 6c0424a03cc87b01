"""Mined items: answers that show a weakness, by exact categories, and whether mining them was worth it.

- ``forgotten``: wrong, although an earlier champion answered the same item right.
- ``overconfident_wrong``: wrong, although the mean token probability is at least SURE.
- ``wrong``: wrong, and less sure than that.
- ``unstable``: a variant of an item is answered wrong, while the item itself is answered right.
- ``low_margin``: right, but the least certain token had a probability below UNSURE.
- ``hard``: of a task without a grader, and the loss of its reference answer is among the largest of its task.

A wrong variant is ``unstable`` however sure it was. Otherwise an answer is in the first category that fits.
Only the probe pool and items that no pool holds are mined: of a user's task, the rows that it is trained on.

An item of low margin is failed by the next checkpoint more often than one that was right and sure, and less often than
a random one of its level (``benchmarks/mining``). So such items come after all wrong ones, take at most a
tenth of a set, and do not direct the search.

To see whether mining was worth it, the next checkpoint is asked some mined items again, and as many random problems of
the same families and levels that no pool holds and no earlier set had. If the mined items are not failed more often,
mining found noise.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from random import Random
from typing import Literal

from pydantic import BaseModel, ConfigDict
from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example
from ratchet.evaluation.record import Evaluation, ItemRecord
from ratchet.evaluation.suite import Suite
from ratchet.inference.prompt_format import PromptFormat
from ratchet.stats.proportions import Interval, newcombe
from ratchet.tasks import registry
from ratchet.tasks.error_classes import classify
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import item_key

Category = Literal["forgotten", "overconfident_wrong", "wrong", "unstable", "low_margin", "hard"]
SURE = 0.9
"""Mean token probability from which a wrong answer is overconfident."""

UNSURE = 0.5
"""Token probability below which a right answer has a low margin: another token was about as likely."""

FRONTIER = 0.2, 0.8
"""Success rates between which a level is searched: below, one example does not help; above, little is left to learn."""

LOW_MARGIN_SHARE = 0.1
"""Largest share of a set that right answers may take."""

PROBE = "probe"
"""``found_by`` of an item that came from the probe record."""

ROWS = "rows"
"""``found_by`` of a row that a user's task is trained on."""

HARD_SHARE = 0.25
"""Share of a task's rows that counts as hard, where no grader says what is wrong."""

_MOST_DRAWS = 200
"""Draws for one control item after which its level counts as exhausted."""


class GradedAnswer(BaseModel):
    """An item with a model's answer. ``error`` is its error class (see ratchet.tasks.error_classes), None where right.

    ``mean_probability`` is exp of the mean token log-probability: the geometric mean of the token probabilities;
    ``least_probability`` belongs to the least certain token. Both are 0 where there is no token. ``gold_nll`` is the
    loss of the right answer in nats a token, None where it was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: Example
    key: str
    answer: str
    error: str | None
    mean_probability: float
    least_probability: float
    gold_nll: float | None = None

    @property
    def cell(self) -> tuple[str, int]:
        """Family (``text`` if there is none) and level."""
        return self.example.family or "text", self.example.level

    @property
    def is_right(self) -> bool:
        return self.error is None

    @classmethod
    def of(
        cls,
        example: Example,
        key: str,
        text: str,
        logprobs: Sequence[float],
        prompt_format: PromptFormat,
        *,
        finished: bool,
    ) -> GradedAnswer:
        """Grade a text by the item's own grader. Raises DataError as grade_example does."""
        return cls(
            example=example,
            key=key,
            answer=text,
            error=classify(example, prompt_format.parse(text), text, finished=finished),
            mean_probability=math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0,
            least_probability=math.exp(min(logprobs)) if logprobs else 0.0,
        )

    @classmethod
    def of_record(cls, example: Example, record: ItemRecord, prompt_format: PromptFormat) -> GradedAnswer:
        """As testing recorded it; whether it is right is taken from the record."""
        finished = record.finish_reason == "stop"
        found = cls.of(example, record.key, record.answer, record.token_logprobs, prompt_format, finished=finished)
        found = found.model_copy(update={"gold_nll": record.gold_nll})
        if record.correct == found.is_right:
            return found
        return found.model_copy(update={"error": None if record.correct else "wrong"})


class MinedItem(BaseModel):
    """One weak item. ``weakness`` orders items: the larger, the more there is to learn.

    ``found_by`` says how: in the probe record, or by which move of the search (``fresh``, ``near``, or a kind of
    variant); ``parent`` is the key of the item that it is a relative or a variant of. ``error`` is the error class,
    None for a right answer of low margin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: Example
    key: str
    category: Category
    answer: str
    weakness: float
    error: str | None = None
    found_by: str = PROBE
    parent: str | None = None

    @property
    def cell(self) -> tuple[str, int]:
        return self.example.family or "text", self.example.level

    @property
    def is_right(self) -> bool:
        """Whether the answer was right, of low margin."""
        return self.category == "low_margin"


def categorise(answer: GradedAnswer, *, was_right: bool = False, is_variant: bool = False) -> Category | None:
    """The category of an answer, None where it shows no weakness.

    ``was_right`` says that an earlier champion had it right, ``is_variant`` that the item is a variant of one that
    this model has right.
    """
    if answer.is_right:
        return "low_margin" if answer.least_probability < UNSURE else None
    if is_variant:
        return "unstable"
    if was_right:
        return "forgotten"
    return "overconfident_wrong" if answer.mean_probability >= SURE else "wrong"


def mined_item(
    answer: GradedAnswer, category: Category, times_mined: int = 0, found_by: str = PROBE, parent: str | None = None
) -> MinedItem:
    """The item with its weakness, which shrinks with every earlier set that held it."""
    return MinedItem(
        example=answer.example,
        key=answer.key,
        category=category,
        answer=answer.answer,
        weakness=_weakness(answer, category) / (1 + times_mined),
        error=answer.error,
        found_by=found_by,
        parent=parent,
    )


def mine(
    answers: Iterable[GradedAnswer], times_mined: Mapping[str, int], was_right: Container[str] = frozenset()
) -> list[MinedItem]:
    """The weak ones among the answers to a probe, the weakest first.

    ``times_mined`` counts how often a key was mined from earlier checkpoints: items mined before come after new
    ones at the same frontier, so that an item that stays wrong is not in every set. ``was_right`` holds the keys
    that an earlier champion answered right.
    """
    found = [
        mined_item(answer, category, times_mined.get(answer.key, 0))
        for answer in answers
        if (category := categorise(answer, was_right=answer.key in was_right)) is not None
    ]
    return weakest_first(found)


def weakest_first(found: Iterable[MinedItem]) -> list[MinedItem]:
    """Each key once, the weakest in front; equal ones by key."""
    best: dict[str, MinedItem] = {}
    for item in sorted(found, key=lambda item: (-item.weakness, item.key)):
        best.setdefault(item.key, item)
    return list(best.values())


def chosen(found: Iterable[MinedItem], places: int) -> list[MinedItem]:
    """A set of at most ``places`` items: the weakest wrong ones, then those of low margin if there is room.

    Held-out rows of users' tasks come last, since no example can be made of them.
    """
    ranked = sorted(weakest_first(found), key=lambda item: not can_be_corrected(item))
    wrong = [item for item in ranked if not item.is_right][:places]
    low_margin = [item for item in ranked if item.is_right][: int(LOW_MARGIN_SHARE * places)]
    return [*wrong, *low_margin][:places]


def can_be_corrected(item: MinedItem) -> bool:
    """Whether examples can be made of it: by its family, or because it is a training row."""
    return item.found_by == ROWS or registry.find(item.example.family) is not None


def hard_items(rows: Sequence[Example], losses: Sequence[float | None]) -> list[MinedItem]:
    """The HARD_SHARE of each task's rows with the largest loss of the reference answer, at least one."""
    by_task: dict[str | None, list[tuple[float, Example]]] = defaultdict(list)
    for row, loss in zip(rows, losses, strict=True):
        if loss is not None:
            by_task[row.family].append((loss, row))
    found = []
    for scored in by_task.values():
        scored.sort(key=lambda pair: -pair[0])
        for loss, row in scored[: max(1, int(HARD_SHARE * len(scored)))]:
            weakness = 1.0 + 1.0 - math.exp(-loss)
            found.append(
                MinedItem(example=row, key=item_key(row), category="hard", answer="", weakness=weakness, found_by=ROWS)
            )
    return found


def counts(mined: Iterable[MinedItem]) -> dict[str, int]:
    """Items by category."""
    return dict(Counter(item.category for item in mined))


def frontier_cells(rates: Mapping[tuple[str, int], float]) -> list[tuple[str, int]]:
    """The families and levels that are worth searching, by the checkpoint's success rates there."""
    low, high = FRONTIER
    made = (cell for cell in rates if registry.find(cell[0]) is not None)
    return sorted(cell for cell in made if low <= rates[cell] <= high)


def within_reach(mined: Iterable[MinedItem], rates: Mapping[tuple[str, int], float]) -> list[MinedItem]:
    """Mined items of the levels at the frontier or above it. Forgotten items and training rows are kept in any case."""
    return [
        item
        for item in mined
        if item.category == "forgotten" or item.found_by == ROWS or rates.get(item.cell, 0.0) >= FRONTIER[0]
    ]


def _weakness(answer: GradedAnswer, category: Category) -> float:
    """Right answers of low margin from 0 to 1, wrong ones from 1 to 2 (the less likely the right answer, the weaker),
    forgotten above.

    How sure the wrong answer was says less: at the next checkpoint the surer ones are right more often
    (``benchmarks/mining``). One whose right answer was not scored comes last in its category.
    """
    if category == "low_margin":
        return 1.0 - answer.least_probability
    unlikely = 0.0 if answer.gold_nll is None else 1.0 - math.exp(-answer.gold_nll)
    return (2.0 if category == "forgotten" else 1.0) + unlikely


def graded_answers(suite: Suite, record: Evaluation, prompt_format: PromptFormat) -> list[GradedAnswer]:
    """The answers of a record that were graded, in its order; items of another metric than accuracy have no grade."""
    graded = (item for item in record.items if item.correct is not None)
    return [GradedAnswer.of_record(suite.by_id[item.item_id], item, prompt_format) for item in graded]


def read_mined(artifacts: ArtifactStore, artifact_id: str) -> list[MinedItem]:
    """The items of a mined set, the weakest first."""
    return [MinedItem.model_validate_json(line) for line in artifacts.open_lines(artifact_id)]


class FollowUp(BaseModel):
    """Of ``mined`` items of the set of ``checkpoint``, ``mined_failed`` are still failed; likewise of random ones.

    ``excess`` is the interval (95 %, Newcombe) of the difference of the two shares; ``by_category`` has
    (failed, items) of each category.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    mined: int
    mined_failed: int
    random: int
    random_failed: int
    excess: Interval
    by_category: dict[str, tuple[int, int]]


def retest_sample(items: Sequence[MinedItem], most: int, seed: int) -> list[MinedItem]:
    """At most ``most`` items of a set, at random: only those whose family can make similar ones."""
    known = [item for item in items if registry.find(item.example.family) is not None]
    return known if len(known) <= most else Random(f"{seed} retest").sample(known, most)


def control_items(items: Sequence[MinedItem], excluded: Container[str], seed: int) -> list[Example]:
    """A random problem of the same family and level for each item; none where a level gives no more."""
    random, seen, drawn = Random(f"{seed} control"), set[str](), []
    for item in items:
        family = registry.get(item.cell[0])
        for _ in range(_MOST_DRAWS):
            problem = family.generate(item.example.level, random.getrandbits(48))
            if problem.key not in excluded and problem.key not in seen:
                seen.add(problem.key)
                drawn.append(to_example(problem, "control"))
                break
    return drawn


def follow_up(
    checkpoint: str, items: Sequence[MinedItem], is_right: Sequence[bool], control_is_right: Sequence[bool]
) -> FollowUp | None:
    """The comparison; None where either side is empty."""
    if not items or not control_is_right:
        return None
    by_category: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for item, right in zip(items, is_right, strict=True):
        by_category[item.category][0] += not right
        by_category[item.category][1] += 1
    failed, control_failed = is_right.count(False), control_is_right.count(False)
    return FollowUp(
        checkpoint=checkpoint,
        mined=len(items),
        mined_failed=failed,
        random=len(control_is_right),
        random_failed=control_failed,
        excess=newcombe(failed, len(items), control_failed, len(control_is_right)),
        by_category={category: (bad, n) for category, (bad, n) in sorted(by_category.items())},
    )
