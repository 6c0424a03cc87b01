"""Every dataset of the reasoning-gym library as a family: ``rg:<dataset>``.

Level n is level n - 1 of every attribute of the dataset's curriculum, without lower levels mixed in (an attribute that
must be an interval extends to the next level); a dataset without a curriculum has only level 1. Answers are scored by
the dataset's own verifier, with three precautions against problems found in version 0.1.25. Some verifiers pass the
answer to ``eval`` or to a parser built on it. Neither a model nor a file from a stranger may run code, so these
verifiers get plain expressions only. Some verifiers give full marks to any text for some items, so a full score is
checked against the score of nonsense. Some raise an error for an answer that they cannot read.

The library is imported when a family is first needed (1.2 s), not with this module.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar

from ratchet.errors import DataError, UnknownPlugin
from ratchet.tasks.family import Grade, Problem, Variant, each_once

_SEEDS = {"acre": 4096, "word_ladder": 4096, "gsm_symbolic": 65_536, "list_functions": 65_536}
"""Number of seeds for datasets that build all their items at once, or refuse a large size."""
_DEFAULT_SEEDS = 2**20
_LAST_LEVEL = {
    "caesar_cipher": 2,
    "countdown": 2,
    "jugs": 2,
    "letter_jumble": 2,
    "modulo_grid": 1,
    "puzzle24": 3,
    "rubiks_cube": 4,
    "spell_backward": 4,
    "zebra_puzzles": 5,
}
"""Last usable level of datasets whose higher levels version 0.1.25 cannot generate: it raises or never returns."""
_RELATIVES = 8
_LONG = 200

LITERAL = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Datasets whose verifier calls ``eval`` on the answer."""
ALGEBRAIC = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Datasets whose verifier parses the answer with sympy."""

_NONSENSE = "zzz"
_LENGTH_LIMIT = 2_000
_FORMULA = re.compile(r"[-+*/^().,\s0-9A-Za-z]*")
_NAME = re.compile(r"[A-Za-z]+")
_KNOWN_NAMES = re.compile("[A-Za-z]|a?sin|a?cos|a?tan|sinh|cosh|tanh|exp|log|ln|sqrt|pi")
_POWER = re.compile(r"(?:\*\*|\^)\s*(.{0,4})")
_TOWER = re.compile(r"\)\s*(?:\*\*|\^)|(?:\*\*|\^)\s*[0-9]+\s*(?:\*\*|\^)")


def family(dataset: str) -> ReasoningGym:
    """The family of a dataset. Raises UnknownPlugin if the library is not installed or has no such dataset."""
    try:
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError as error:
        raise UnknownPlugin(f"rg:{dataset} needs `pip install reasoning-gym`.") from error
    if dataset not in DATASETS or dataset == "composite":
        raise UnknownPlugin(f"no reasoning-gym dataset {dataset!r}. Known: {', '.join(sorted(DATASETS))}.")
    return ReasoningGym(dataset)


class ReasoningGym:
    """One dataset. The library has neither variants nor traits of items; the length is used for the latter."""

    version = "1"
    errors: ClassVar = {
        "format": "the verifier could not read it",
        "partial": "the verifier gave some credit",
        "wrong": "the verifier gave no credit",
    }
    features: ClassVar = {
        "short": f"a question below {_LONG} characters",
        "long": f"a question of {_LONG} characters or more",
    }
    variant_kinds: tuple[str, ...] = ()

    def __init__(self, dataset: str):
        self.name = f"rg:{dataset}"
        self.levels = tuple(range(1, _level_count(dataset) + 1))
        self._dataset = dataset

    def generate(self, level: int, seed: int) -> Problem:
        entry = self._entry(level, seed)
        gold = entry["answer"]
        if not isinstance(gold, str) or not gold.strip():
            raise DataError(f"{self.name} has items without a gold answer, so it cannot be used for training.")
        question = str(entry["question"]).strip()
        return Problem(
            family=self.name,
            level=level,
            key=f"{self.name}:{_digest(question)}",
            question=question,
            gold=gold,
            solution=gold,
            seed=seed,
        )

    def capacity(self, level: int) -> int | None:  # noqa: ARG002 - unknown to the library
        return None

    def parse(self, question: str) -> Problem | None:  # noqa: ARG002 - only level and seed identify an entry
        return None

    def grade(self, problem: Problem, answer: str) -> Grade:
        text = answer.strip()
        if not text:
            return Grade(correct=False, extracted=None, error="format")
        if problem.seed is None:
            raise DataError(f"{self.name} grades only problems that it has generated; {problem.key} has no seed.")
        entry = self._entry(problem.level, problem.seed)
        credit = verified_score(self._dataset, _items(self._dataset, problem.level), entry, text)
        if credit is None:
            return Grade(correct=False, extracted=None, error="format")
        if credit >= 1:
            return Grade(correct=True, extracted=text)
        return Grade(correct=False, extracted=text, error="partial" if credit > 0.1 else "wrong")

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Other items of the level, since the library has no more similar ones."""
        seeds = range(seed * _RELATIVES + 1, (seed + 1) * _RELATIVES + 1)
        return each_once((self.generate(problem.level, other) for other in seeds), problem)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:  # noqa: ARG002 - the library has none
        yield from ()

    def traits(self, problem: Problem) -> frozenset[str]:
        return frozenset({"long" if len(problem.question) >= _LONG else "short"})

    def _entry(self, level: int, seed: int) -> dict[str, Any]:
        self._require(level)
        try:
            return _entry(self._dataset, level, seed % _seeds(self._dataset))
        except (AssertionError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(f"{self.name} cannot generate level {level}, seed {seed}: {error}") from error

    def _require(self, level: int) -> None:
        if level not in self.levels:
            raise DataError(f"{self.name} has levels 1 to {self.levels[-1]}, not {level}.")


@lru_cache(maxsize=1024)
def _entry(dataset: str, level: int, place: int) -> dict[str, Any]:
    """The library's item: question, answer, and the data for its verifier."""
    entry: dict[str, Any] = _items(dataset, level)[place]
    return entry


@lru_cache(maxsize=64)
def _items(dataset: str, level: int) -> Any:
    """The library's dataset of this level; item i depends on seed i alone."""
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
    from reasoning_gym.factory import create_curriculum, create_dataset, has_curriculum

    fixed = {"seed": 0, "size": _seeds(dataset)}
    if not has_curriculum(dataset):
        return create_dataset(dataset, **fixed)
    curriculum = create_curriculum(dataset)
    curriculum.set_global_level(level - 1)
    exact = DefaultCurriculumContext(mode=RangeAttributeMode.UPPER_BOUND)
    return create_dataset(dataset, **vars(curriculum.generate_configuration(fixed, exact)))


def _level_count(dataset: str) -> int:
    """The largest number of levels of any attribute. The last value of an interval does not start a level."""
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(dataset):
        return 1
    attributes = create_curriculum(dataset).attributes.values()
    stated = max((len(a.levels) - int(getattr(a, "ensure_interval", False)) for a in attributes), default=1)
    return min(stated, _LAST_LEVEL.get(dataset, stated))


def _seeds(dataset: str) -> int:
    return _SEEDS.get(dataset, _DEFAULT_SEEDS)


def _digest(question: str) -> str:
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:24]


def verified_score(dataset: str, items: Any, entry: dict[str, Any], answer: str) -> float | None:
    """Score from 0 to 1; None for an answer that the verifier cannot, or must not, read."""
    if answer == str(entry["answer"]).strip():
        return 1.0
    if len(answer) > _LENGTH_LIMIT or not _is_harmless(dataset, answer):
        return None
    credit = _ask(items, entry, answer)
    if credit is not None and credit >= 1 and (_ask(items, entry, _NONSENSE) or 0) >= 1:
        return 0.0
    return credit


def _ask(items: Any, entry: dict[str, Any], answer: str) -> float | None:
    try:
        return float(items.score_answer(answer, entry))
    except Exception:  # noqa: BLE001 - a hundred third-party verifiers; an error means that the answer is unreadable
        return None


def _is_harmless(dataset: str, answer: str) -> bool:
    if dataset in LITERAL:
        return _is_literal(answer)
    return dataset not in ALGEBRAIC or _is_formula(answer)


def _is_literal(answer: str) -> bool:
    try:
        ast.literal_eval(answer)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return True


def _is_formula(answer: str) -> bool:
    """Whether it has only numbers, one-letter variables, known functions, and powers small enough to compute."""
    names = _NAME.findall(answer)
    return (
        _FORMULA.fullmatch(answer) is not None
        and all(_KNOWN_NAMES.fullmatch(name) for name in names)
        and not _TOWER.search(answer)
        and all(re.match(r"-?[0-9]{1,2}(?![0-9])", power) for power in _POWER.findall(answer))
        and not re.search(r"[0-9]{20}", answer)
    )
