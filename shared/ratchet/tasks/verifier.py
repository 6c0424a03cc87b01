"""Ask a reasoning-gym verifier about an answer, without believing or executing everything.

Three reservations, each found in version 0.1.25. Some verifiers hand the answer to ``eval`` or to a parser built on it:
a model, or a file from a stranger, must not get to run code, so these see plain expressions only. Some give full marks
to any text for some items: what they say of nonsense decides whether they are believed. Some raise at what they
cannot read.
"""

from __future__ import annotations

import ast
import re
from typing import Any

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


def score(dataset: str, items: Any, entry: dict[str, Any], answer: str) -> float | None:
    """Credit from 0 to 1; None for an answer that the verifier cannot, or must not, read."""
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
    except Exception:  # noqa: BLE001 - a hundred foreign verifiers; what one cannot read is no answer to it
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
    """Numbers, one-letter variables and known functions; powers small enough to be worked out."""
    names = _NAME.findall(answer)
    return (
        _FORMULA.fullmatch(answer) is not None
        and all(_KNOWN_NAMES.fullmatch(name) for name in names)
        and not _TOWER.search(answer)
        and all(re.match(r"-?[0-9]{1,2}(?![0-9])", power) for power in _POWER.findall(answer))
        and not re.search(r"[0-9]{20}", answer)
    )
