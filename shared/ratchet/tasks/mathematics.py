"""Reads and compares mathematical expressions with math-verify, in bounded time and memory.

math-verify bounds its work by SIGALRM, which works in a main thread alone, and systems grade in other threads. Its time
limits are therefore off. Instead, a text is bounded by its length and nesting, an expression by its nodes and the size
of its numbers, and the work by the number of calls. What exceeds a bound is no expression, or is not equal. SymPy is
imported when the first expression is read.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from types import FrameType
from typing import Any, Final, TypeVar

from ratchet.errors import UnknownPlugin
from ratchet.tasks.markup import plain_characters

Expression = Any
"""A SymPy expression, set, relation or matrix."""
T = TypeVar("T")

TEXT_LIMIT: Final = 300
_MOST_NESTED = 12
_MOST_NODES = 200
_MOST_BITS = 14_000
"""The size of the largest number that a constant may come to; ``10^{1000}`` has 3,322."""
_MOST_BITS_WITHIN = 512
"""The same for numbers in sets, relations and beside variables, where SymPy factors them."""
_LARGEST_ARGUMENT = 200
"""Of factorials and binomials."""
_LARGEST_POWER = 20
"""Of an expression with variables, which is expanded."""
_MOST_CALLS = 1_000_000
"""Python calls, some two seconds. Ordinary expressions take 10,000 to 400,000."""
_WARM_UP = r"\frac{-b+\sqrt{b^2-4}}{2a}+\log_2 8+\sin x"
"""The first expression costs as many calls as 50 later ones, since the parser builds its tables. None is counted."""
_DIGITS = 30
"""Precision of numerical comparisons."""
_POINTS = (5, -9)
_EXACT, _ROUNDED = 1e-20, 1e-6
"""Largest relative difference of two constants; the second where one is given in decimals."""

_FUNCTIONS = (
    "sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|asin|acos|atan|sinh|cosh|tanh|log|ln|exp|and|or|max|min|gcd|lcm"
)
_REWRITTEN = (
    (re.compile(r"\$|\\[()\[\]]|\\displaystyle|\\[,;:! ]"), " "),
    (re.compile(r"\\\\(?=[A-Za-z])"), r"\\"),
    (re.compile(r"×"), r"\\times "),
    (re.compile(r"[·⋅]"), r"\\cdot "),
    (re.compile(r"÷"), r"\\div "),
    (re.compile(r"π"), r"\\pi "),
    (re.compile(r"∞"), r"\\infty "),
    (re.compile(r"≤"), r"\\le "),
    (re.compile(r"≥"), r"\\ge "),
    (re.compile(r"√\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√([0-9]+|[a-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"([})0-9])\s*\\(?:text|mbox|mathrm)\{[A-Za-z /]*\}(?:\^\{?[0-9]\}?)?\s*\Z"), r"\1"),  # a unit
    (re.compile(r"(?<![\\A-Za-z])infinity(?![A-Za-z])"), r"\\infty "),
    # math-verify misreads these: it takes 1 1/2 for 1, 1e-3 for e - 3, and 2(5) for 7.
    (re.compile(r"(?<![\w.^}])([0-9]+) ([0-9]+)/([0-9]+)(?![\w.(])"), r"(\1+\\frac{\2}{\3})"),
    (re.compile(r"(?<![\w.])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,3})(?![\w.])"), r"(\1 \\cdot 10^{\2})"),
    (re.compile(r"(?<=[0-9])(?<!_[0-9])\s*\("), r" \\cdot ("),
    (re.compile(rf"(?<![A-Za-z\\])({_FUNCTIONS})(?=\s*[({{0-9])"), r"\\\1 "),
    (re.compile(r"\A\s*([A-Za-z]{4,30})\s*\Z"), r"\\text{\1}"),  # such as Even
)
_COMMANDS = frozenset(
    r"""
    frac dfrac tfrac cfrac sqrt binom dbinom tbinom times cdot div pm mp pi infty circ degree text textbf textit textrm
    mathrm mathbf mathit mbox mathbb left right big bigl bigr Big sin cos tan cot sec csc arcsin arccos arctan sinh cosh
    tanh log ln exp gcd lcm max min cup cap setminus backslash in notin emptyset varnothing le leq leqslant ge geq
    geqslant lt gt ne neq approx to lfloor rfloor lceil rceil lvert rvert vert quad qquad begin end and or
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi chi
    psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega { } % \ | , ; : !
    """.split()  # noqa: SIM905
)
"""Others are refused: sums, integrals, limits, substitutions and the like are evaluated without a bound."""
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_REFUSED = re.compile(
    r"(?<!_)[0-9]\s+[0-9]"  # 9 500 is no number, nor a product
    r"|[0-9]{150}|\\sqrt\s*\[(?!\s*[0-9]{1,2}\s*\])|\\[dt]?binom(?!\s*\{[0-9a-z]{1,2}\}\s*\{[0-9a-z]{1,2}\})"
    r"|\A[^A-Za-z\\]*=[^A-Za-z\\]*\Z"  # a calculation, whose result is a number
    r"|\)\s*_|\|\s*_|\\begin\{(?!\w{0,10}matrix\})|\\\||[0-9]!!"
    rf"|(?<![\\A-Za-z{{])(?!(?:{_FUNCTIONS})(?![A-Za-z]))(?:[A-Za-z]{{4}}|[A-Za-z]{{2,3}}\s+[A-Za-z0-9\\])"  # words
)
_FORMULA = re.compile(r"[0-9=^+*/<>!\\-]|\A[A-Za-z]{1,3}\Z")
_POWER = re.compile(r"\^\s*[{(]")
_NODES = frozenset(
    """
    Add Mul Pow Abs exp log sin cos tan cot sec csc asin acos atan sinh cosh tanh coth factorial binomial floor ceiling
    Max Min UnevaluatedExpr Symbol Dummy ImaginaryUnit Pi Exp1 Infinity NegativeInfinity
    Interval Union Intersection Complement FiniteSet Tuple EmptySet Reals Integers Naturals Naturals0 Rationals
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Contains And Or
    MutableDenseMatrix ImmutableDenseMatrix BooleanTrue BooleanFalse
    """.split()  # noqa: SIM905
)

_lock = threading.Lock()
"""SymPy and ANTLR share caches between threads without locks of their own."""


class _WorkExceeded(BaseException):
    """The work has taken too many calls. Not an Exception, since SymPy and math-verify catch those."""


def as_latex(text: str) -> str | None:
    """The text as LaTeX for the parser; None if it is no formula, or one that could be harmful to parse."""
    if len(text) > TEXT_LIMIT:
        return None
    latex = plain_characters(text).strip().rstrip(".").strip()
    for pattern, replacement in _REWRITTEN:
        latex = pattern.sub(replacement, latex)
    latex = latex.strip()
    return latex if _FORMULA.search(latex) and _is_harmless(latex) else None


@lru_cache(maxsize=4_096)
def parse(text: str) -> Expression | None:
    """The expression that the text is; None if it is none, or exceeds a bound."""
    latex = as_latex(text)
    if latex is None:
        return None
    library = _library()
    found = bounded(lambda: library.parse_latex(latex), default=None)
    return found if found is not None and bounded(lambda: _is_small(found), default=False) else None


def rational(text: str) -> Fraction | None:
    """The value of an expression that is a rational number."""
    expression = parse(text)
    return None if expression is None else bounded(lambda: _rational(expression), default=None)


def from_decimal(text: str) -> Expression:
    """A number as written: a decimal is a rounded value, so that ``1.4142136`` equals ``\\sqrt{2}``."""
    sympy = _library().sympy
    return sympy.Float(text, _DIGITS) if "." in text else sympy.Rational(text)


def is_same(expected: Expression, given: Expression) -> bool:
    """Whether two expressions are equal: constants by their value, sets, relations and the rest by math-verify."""
    return bounded(lambda: _is_same(expected, given), default=False)


def _is_same(expected: Expression, given: Expression) -> bool:
    library = _library()
    if expected == given:
        return True
    if isinstance(expected, library.sympy.Expr) and isinstance(given, library.sympy.Expr):
        if library.is_constant(expected) and library.is_constant(given):
            return _is_near(expected, given)
        if expected.free_symbols != given.free_symbols or _differ_somewhere(expected, given):
            return False
    return bool(library.verify(expected, given, timeout_seconds=None))


def _differ_somewhere(one: Expression, other: Expression) -> bool:
    """Whether two expressions have different values at a point, which is found out faster than by simplifying."""
    sympy = _library().sympy
    symbols = sorted(one.free_symbols, key=str)
    for start in _POINTS:
        point = {symbol: sympy.Rational(start + 7 * place, 11) for place, symbol in enumerate(symbols)}
        values = [sympy.N(expression.subs(point), _DIGITS) for expression in (one, other)]
        if all(value.is_number and value.is_finite for value in values):
            difference = abs(values[0] - values[1])
            if difference > _ROUNDED * (abs(values[0]) + abs(values[1])):
                return True
    return False


def _is_near(expected: Expression, given: Expression) -> bool:
    sympy = _library().sympy
    is_rounded = bool(expected.has(sympy.Float) or given.has(sympy.Float))
    wanted, said = _rational(expected), _rational(given)
    if wanted is not None and said is not None and (not is_rounded or wanted.denominator == 1):
        return wanted == said
    one, other = (sympy.N(value.doit(), _DIGITS) for value in (expected, given))
    if not (one.is_finite and other.is_finite):
        return bool(one == other)
    return bool(abs(one - other) <= (_ROUNDED if is_rounded else _EXACT) * abs(one))


def _rational(expression: Expression) -> Fraction | None:
    value = expression.doit() if _library().is_constant(expression) else None
    if value is None or not (value.is_Rational or value.is_Float):
        return None
    return Fraction(str(value))


def bounded(work: Callable[[], T], default: T, most_calls: int = _MOST_CALLS) -> T:
    """The result of the work; the default if it takes too many calls, or SymPy fails on it.

    A trace function counts the calls, since it can end the work in any thread. Unlike a clock it grades alike on a busy
    machine.
    """
    calls = 0

    def count(_frame: FrameType, _event: str, _argument: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > most_calls:
            raise _WorkExceeded

    with _lock:
        previous = sys.gettrace()
        sys.settrace(count)
        try:
            return work()
        except (_WorkExceeded, ArithmeticError, AttributeError, LookupError, NotImplementedError, RecursionError):
            return default
        except (TypeError, ValueError):  # SymPy's errors for what it cannot evaluate
            return default
        finally:
            sys.settrace(previous)


def _is_harmless(latex: str) -> bool:
    """Whether LaTeX can be parsed without harm: the parser evaluates some of what it reads."""
    return (
        _COMMANDS.issuperset(_COMMAND.findall(latex))
        and _REFUSED.search(latex) is None
        and _nesting(latex) <= _MOST_NESTED
        and not any(map(_is_tower, _exponents(latex)))
    )


def _nesting(latex: str) -> int:
    depth = deepest = 0
    for character in latex:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest


def _exponents(latex: str) -> Iterator[str]:
    for found in _POWER.finditer(latex):
        depth, end = 1, found.end()
        while end < len(latex) and depth:
            depth += (latex[end] in "({") - (latex[end] in ")}")
            end += 1
        yield latex[found.end() : end]


def _is_tower(exponent: str) -> bool:
    """Whether an exponent can itself be very large: ``e^{x^2}`` is allowed, ``10^{10^{10}}`` is not."""
    return "!" in exponent or (
        "^" in exponent and (exponent.count("^") > 1 or re.search("[0-9]{2}", exponent) is not None)
    )


def _is_small(expression: Expression) -> bool:
    """Whether an expression, as parsed, can be evaluated and simplified without harm."""
    sympy = _library().sympy
    nodes = []
    for node in sympy.preorder_traversal(expression):
        nodes.append(node)
        # A relation of constants, such as 3 + 4 = 7, is as good as any other that is true.
        is_trivial = isinstance(node, sympy.core.relational.Relational) and not node.free_symbols
        if is_trivial or len(nodes) > _MOST_NODES or node is sympy.nan or not _is_known(node):
            return False
    return _bits(expression) <= (_MOST_BITS if _library().is_constant(expression) else _MOST_BITS_WITHIN)


def _is_known(node: Expression) -> bool:
    return isinstance(node, _library().sympy.Number) or type(node).__name__ in _NODES


def _bits(node: Expression) -> float:
    """An upper bound of the bits of the numbers that a node comes to; infinite where that is not bounded."""
    sympy = _library().sympy
    if isinstance(node, sympy.Rational):
        return max(int(node.p).bit_length(), int(node.q).bit_length())
    if not getattr(node, "args", ()):
        return 1.0
    sizes = [_bits(argument) for argument in node.args]
    if isinstance(node, sympy.Pow):
        return _power_bits(node, sizes)
    if isinstance(node, sympy.factorial | sympy.binomial):
        return 2_000.0 if max(sizes) <= _LARGEST_ARGUMENT.bit_length() else float("inf")
    if isinstance(node, sympy.exp | sympy.sinh | sympy.cosh | sympy.tanh | sympy.coth) and max(sizes) > 80:
        return float("inf")
    return sum(sizes) + len(sizes)


def _power_bits(node: Expression, sizes: list[float]) -> float:
    base, exponent = node.args
    if exponent.free_symbols:
        return sum(sizes) if sizes[0] + sizes[1] < 1_000 else float("inf")
    value = abs(float(exponent)) if exponent.is_Number else 2.0 ** min(sizes[1], 64)
    if base.free_symbols and value > _LARGEST_POWER:
        return float("inf")
    return sizes[0] * max(1.0, value)


class _Library:
    """SymPy and the functions of math-verify, imported once."""

    def __init__(self) -> None:
        try:
            import math_verify
            import sympy
            from latex2sympy2_extended import NormalizationConfig
        except ModuleNotFoundError as error:
            raise UnknownPlugin("graders numeric and math need `pip install math-verify` for expressions.") from error
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every time limit that is off
        self.sympy: Any = sympy
        self.verify: Any = math_verify.verify
        # Not `units`, which takes the h off "\pi r^2 h".
        rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
        self._config = [math_verify.LatexExtractionConfig(normalization_config=rules, boxed_match_priority=-1)]
        self._parse: Any = math_verify.parse
        self.parse_latex(_WARM_UP)

    def parse_latex(self, latex: str) -> Expression | None:
        found = self._parse(f"${latex}$", self._config, fallback_mode="no_fallback", parsing_timeout=None)
        return found[0] if found else None

    def is_constant(self, expression: Expression) -> bool:
        return isinstance(expression, self.sympy.Expr) and not expression.free_symbols


@lru_cache(maxsize=1)
def _library() -> _Library:
    return _Library()
