"""Prefix expressions of ``regime3``: syntax tree, parser, canonical form, operators and exact evaluation."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import Any

from ratchet.errors import MalformedExpression, UndefinedValue


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number: ``5`` or ``-7/2``; ``0.5`` is parsed too."""

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
MAX_LENGTH = 10_000
MAX_DEPTH = 64
MAX_LITERAL = 256
_WORD = re.compile(r"[()]|[^\s()]+")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+|/[0-9]+)?")
_BITS = re.compile(r"0b([01]+)")
_SYMBOL = re.compile(r"[^\W\d_]\w*")


def parse(text: str) -> Expression:
    """Parse a text that is one expression. Raises MalformedExpression, naming the column, counted from 1."""
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
            takes = f"{self.operator.name} takes {self.operator.arity_text}"
            raise _malformed(self.column, f"{takes} arguments, not {len(self.arguments)}")
        return Call(self.operator.name, tuple(self.arguments))


def _words(text: str) -> Iterator[tuple[int, str]]:
    return ((match.start() + 1, match[0]) for match in _WORD.finditer(text))


def _open(column: int, words: Iterator[tuple[int, str]], depth: int) -> _OpenCall:
    if depth == MAX_DEPTH:
        raise _malformed(column, f"calls can be nested at most {MAX_DEPTH} deep")
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
        raise _malformed(column, f"{word} is an operator, which must follow '('")
    if word in ("true", "false"):
        return Truth(word == "true")
    if bits := _BITS.fullmatch(word):
        return Bits(bits[1])
    if _NUMBER.fullmatch(word):
        return _parse_number(column, word)
    if _SYMBOL.fullmatch(word):
        return Symbol(word)
    raise _malformed(column, f"{word[:40]!r} is neither a number, a truth, bits nor a symbol")


def _parse_number(column: int, word: str) -> Number:
    try:
        return Number(Fraction(word))
    except ZeroDivisionError:
        raise _malformed(column, f"{word} divides by zero") from None


def _malformed(column: int, what: str) -> MalformedExpression:
    return MalformedExpression(f"column {column}: {what}.")


def show(expression: Expression) -> str:
    """The canonical form: single spaces, fractions in lowest terms, integers without a decimal point. The inverse of
    ``parse``."""
    match expression:
        case Number(value):
            return str(value)
        case Truth(value):
            return "true" if value else "false"
        case Bits(digits):
            return f"0b{digits}"
        case Symbol(name):
            return name
        case Call(operator, arguments):
            return f"({' '.join([operator, *map(show, arguments)])})"


def evaluate(expression: Expression) -> Literal:
    """The exact value. Raises UndefinedValue if there is none."""
    if not isinstance(expression, Call):
        return expression
    operator, arguments = OPERATORS[expression.operator], expression.arguments
    if operator.name == "if":
        condition = evaluate(arguments[0])
        if isinstance(condition, Truth):
            return evaluate(arguments[1 if condition.value else 2])
    return operator(*map(evaluate, arguments))


def equal(left: Expression, right: Expression) -> bool:
    """Whether two expressions are the same or have the same value."""
    if left == right:
        return True
    try:
        return evaluate(left) == evaluate(right)
    except UndefinedValue:
        return False


_MOST_ARGUMENTS = 64
_LARGEST_BITS = 4096
_LARGEST_EXPONENT = 256
KINDS: dict[type, str] = {Number: "number", Truth: "truth", Bits: "bits", Symbol: "symbol"}


@dataclass(frozen=True)
class Operator:
    """An operator. ``takes`` is the kind of each argument, None for any; the last one applies to all that follow."""

    name: str
    meaning: str
    takes: tuple[type[Literal] | None, ...]
    arity: range
    compute: Callable[..., Literal]

    def __call__(self, *arguments: Literal) -> Literal:
        """The value. Raises UndefinedValue. The parser has checked the number of arguments."""
        for place, argument in enumerate(arguments):
            kind = self.takes[min(place, len(self.takes) - 1)]
            if kind is not None and not isinstance(argument, kind):
                raise UndefinedValue(
                    f"argument {place + 1} of {self.name} is a {KINDS[type(argument)]}, not a {KINDS[kind]}."
                )
        return self.compute(*arguments)

    @property
    def argument_kinds(self) -> str:
        return ", then ".join("any" if kind is None else KINDS[kind] for kind in self.takes)

    @property
    def arity_text(self) -> str:
        if len(self.arity) == 1:
            return f"{self.arity[0]}"
        return f"{self.arity[0]} to {self.arity[-1]}"


def _exactly(count: int) -> range:
    return range(count, count + 1)


_TWO_OR_MORE = range(2, _MOST_ARGUMENTS + 1)


def _number(value: Fraction) -> Number:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _LARGEST_BITS:
        raise UndefinedValue(f"a number of more than {_LARGEST_BITS} bits is too large.")
    return Number(value)


def _arithmetic(compute: Callable[..., Any]) -> Callable[..., Literal]:
    """Lift a function of fractions."""

    def lifted(*arguments: Number) -> Number:
        try:
            return _number(Fraction(compute(*(argument.value for argument in arguments))))
        except ZeroDivisionError:
            raise UndefinedValue("a division by zero has no value.") from None

    return lifted


def _relation(compute: Callable[..., bool]) -> Callable[..., Literal]:
    """Lift a predicate of fractions or of truths."""
    return lambda *arguments: Truth(compute(*(argument.value for argument in arguments)))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _LARGEST_EXPONENT:
        raise UndefinedValue(f"an exponent must be an integer from -{_LARGEST_EXPONENT} to {_LARGEST_EXPONENT}.")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base not in (0, 1, -1) and (size - 1) * abs(exponent) > _LARGEST_BITS:
        raise UndefinedValue(f"a number of more than {_LARGEST_BITS} bits is too large.")
    return Fraction(base ** int(exponent))


def _same(left: Literal, right: Literal) -> bool:
    if type(left) is not type(right):
        raise UndefinedValue(f"a {KINDS[type(left)]} and a {KINDS[type(right)]} cannot be compared.")
    return left == right


def _bitwise(compute: Callable[[int, int], int]) -> Callable[..., Literal]:
    def lifted(left: Bits, right: Bits) -> Bits:
        width = len(left.digits)
        if width != len(right.digits):
            raise UndefinedValue(f"bit strings of {width} and {len(right.digits)} bits cannot be combined.")
        return Bits(f"{compute(int(left.digits, 2), int(right.digits, 2)):0{width}b}")

    return lifted


def _shift(bits: Bits, places: Number, *, left: bool) -> Bits:
    """Shift by a number of places, with zeros shifted in and the width unchanged."""
    if places.value.denominator != 1 or places.value < 0:
        raise UndefinedValue("bits can only be shifted by 0, 1, 2 … places.")
    width = len(bits.digits)
    count = min(int(places.value), width)
    zeros = "0" * count
    return Bits(bits.digits[count:] + zeros if left else zeros + bits.digits[: width - count])


def _numbers(name: str, meaning: str, arity: range, compute: Callable[..., Any]) -> Operator:
    return Operator(name, meaning, (Number,), arity, _arithmetic(compute))


def _comparison(name: str, meaning: str, compute: Callable[..., bool]) -> Operator:
    return Operator(name, meaning, (Number,), _exactly(2), _relation(compute))


def _truths(name: str, meaning: str, arity: range, compute: Callable[..., bool]) -> Operator:
    return Operator(name, meaning, (Truth,), arity, _relation(compute))


def _bits(name: str, meaning: str, compute: Callable[[int, int], int]) -> Operator:
    return Operator(name, meaning, (Bits,), _exactly(2), _bitwise(compute))


_ALL = (
    _numbers("add", "sum", _TWO_OR_MORE, lambda *terms: sum(terms)),
    _numbers("sub", "first less second", _exactly(2), operator.sub),
    _numbers("mul", "product", _TWO_OR_MORE, lambda *factors: math.prod(factors)),
    _numbers("div", "exact quotient", _exactly(2), operator.truediv),
    _numbers("floordiv", "quotient rounded down", _exactly(2), operator.floordiv),
    _numbers("mod", "remainder, with the sign of the divisor", _exactly(2), operator.mod),
    _numbers("pow", "first to the power of an integer", _exactly(2), _power),
    _numbers("neg", "with the other sign", _exactly(1), operator.neg),
    _numbers("abs", "without its sign", _exactly(1), abs),
    _numbers("min", "smallest", _TWO_OR_MORE, min),
    _numbers("max", "largest", _TWO_OR_MORE, max),
    Operator("eq", "equal, of one kind", (None,), _exactly(2), lambda a, b: Truth(_same(a, b))),
    Operator("ne", "different, of one kind", (None,), _exactly(2), lambda a, b: Truth(not _same(a, b))),
    _comparison("lt", "less", operator.lt),
    _comparison("le", "less or equal", operator.le),
    _comparison("gt", "greater", operator.gt),
    _comparison("ge", "greater or equal", operator.ge),
    _truths("and", "all true", _TWO_OR_MORE, lambda *truths: all(truths)),
    _truths("or", "any true", _TWO_OR_MORE, lambda *truths: any(truths)),
    _truths("xor", "one of two true", _exactly(2), operator.xor),
    _truths("not", "the other truth", _exactly(1), operator.not_),
    Operator(
        "if",
        "second where the first is true, else third; the other is not computed",
        (Truth, None),
        _exactly(3),
        lambda condition, yes, no: yes if condition.value else no,
    ),
    _bits("bitand", "bit by bit, both, of one width", operator.and_),
    _bits("bitor", "bit by bit, any, of one width", operator.or_),
    _bits("bitxor", "bit by bit, one of two, of one width", operator.xor),
    Operator(
        "bitnot",
        "every bit the other",
        (Bits,),
        _exactly(1),
        lambda bits: Bits(bits.digits.translate({48: "1", 49: "0"})),
    ),
    Operator("shl", "bits to the left", (Bits, Number), _exactly(2), lambda b, n: _shift(b, n, left=True)),
    Operator("shr", "bits to the right", (Bits, Number), _exactly(2), lambda b, n: _shift(b, n, left=False)),
    Operator(
        "concat",
        "bit strings, one after the other",
        (Bits,),
        _TWO_OR_MORE,
        lambda *parts: Bits(reduce(operator.add, (part.digits for part in parts))),
    ),
    Operator("tonum", "bits as a number", (Bits,), _exactly(1), lambda bits: Number(Fraction(int(bits.digits, 2)))),
)
OPERATORS: dict[str, Operator] = {op.name: op for op in _ALL}
