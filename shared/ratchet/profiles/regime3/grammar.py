"""The parser.

.. code-block:: text

    expression = literal | "(" operator expression … ")"
    literal    = number | truth | bits | symbol
    number     = ["-"] digits [ "." digits | "/" digits ]
    truth      = "true" | "false"
    bits       = "0b" ( "0" | "1" ) …
    symbol     = letter [ letter | digit | "_" ] …        but no operator's name
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from ratchet.errors import MalformedExpression
from ratchet.profiles.regime3.expression import Bits, Call, Expression, Literal, Number, Symbol, Truth
from ratchet.profiles.regime3.operators import OPERATORS, Operator

MAX_LENGTH = 10_000
MAX_DEPTH = 64
MAX_LITERAL = 256

_WORD = re.compile(r"[()]|[^\s()]+")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+|/[0-9]+)?")
_BITS = re.compile(r"0b([01]+)")
_SYMBOL = re.compile(r"[^\W\d_]\w*")


def parse(text: str) -> Expression:
    """The one expression that a text is. Raises MalformedExpression, which names the column, counted from 1."""
    if len(text) > MAX_LENGTH:
        raise MalformedExpression(f"an expression has at most {MAX_LENGTH} characters, this one {len(text)}.")
    open_calls: list[_OpenCall] = []
    words = _words(text)
    whole: Expression | None = None
    for column, word in words:
        if whole is not None:
            raise _malformed(column, f"{word!r} follows a complete expression")
        if word == "(":
            open_calls.append(_open(column, words, len(open_calls)))
            continue
        if word != ")":
            part: Expression = _literal(column, word)
        elif open_calls:
            part = open_calls.pop().close()
        else:
            raise _malformed(column, "')' closes nothing")
        if open_calls:
            open_calls[-1].arguments.append(part)
        else:
            whole = part
    if open_calls:
        raise _malformed(open_calls[-1].column, f"'({open_calls[-1].operator.name}' is not closed")
    if whole is None:
        raise MalformedExpression("there is no expression, only white space.")
    return whole


@dataclass
class _OpenCall:
    column: int
    operator: Operator
    arguments: list[Expression] = field(default_factory=list)

    def close(self) -> Call:
        if len(self.arguments) not in self.operator.arity:
            takes = f"{self.operator.name} takes {self.operator.says_arity}"
            raise _malformed(self.column, f"{takes} arguments, here are {len(self.arguments)}")
        return Call(self.operator.name, tuple(self.arguments))


def _words(text: str) -> Iterator[tuple[int, str]]:
    return ((match.start() + 1, match[0]) for match in _WORD.finditer(text))


def _open(column: int, words: Iterator[tuple[int, str]], depth: int) -> _OpenCall:
    if depth == MAX_DEPTH:
        raise _malformed(column, f"calls stand in each other at most {MAX_DEPTH} deep")
    at, name = next(words, (column + 1, ""))
    if name in ("", "(", ")"):
        raise _malformed(at, "an operator has to follow '('")
    if name not in OPERATORS:
        raise _malformed(at, f"no operator {name[:40]!r}. Known: {', '.join(OPERATORS)}")
    return _OpenCall(column, OPERATORS[name])


def _literal(column: int, word: str) -> Literal:
    if len(word) > MAX_LITERAL:
        raise _malformed(column, f"a literal has at most {MAX_LITERAL} characters")
    if word in OPERATORS:
        raise _malformed(column, f"{word} is an operator: it stands after '('")
    if word in ("true", "false"):
        return Truth(word == "true")
    if bits := _BITS.fullmatch(word):
        return Bits(bits[1])
    if _NUMBER.fullmatch(word):
        return _number(column, word)
    if _SYMBOL.fullmatch(word):
        return Symbol(word)
    raise _malformed(column, f"{word[:40]!r} is neither a number, a truth, bits nor a symbol")


def _number(column: int, word: str) -> Number:
    try:
        return Number(Fraction(word))
    except ZeroDivisionError:
        raise _malformed(column, f"{word} divides by zero") from None


def _malformed(column: int, what: str) -> MalformedExpression:
    return MalformedExpression(f"column {column}: {what}.")
