"""Prefix expressions as values: what the parser makes, the printer writes, and the evaluator computes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number: ``5``, ``-7/2``. Read from ``0.5`` as well."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Truth:
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Bits:
    """A bit string with its width: ``0b0101``."""

    digits: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that stands for itself: ``paris``."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator with its arguments."""

    operator: str
    arguments: tuple[Expression, ...]


Literal = Number | Truth | Bits | Symbol
Expression = Literal | Call
