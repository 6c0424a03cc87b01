"""Parser, printer and evaluator of prefix expressions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import MalformedExpression, UndefinedValue
from ratchet.profiles.regime3.grammar import (
    MAX_DEPTH,
    OPERATORS,
    Bits,
    Call,
    Expression,
    Literal,
    Number,
    Symbol,
    Truth,
    equal,
    evaluate,
    parse,
    show,
)

RESERVED = {*OPERATORS, "true", "false"}

numbers = st.fractions(-1000, 1000, max_denominator=50).map(Number)
literals = st.one_of(
    numbers,
    st.booleans().map(Truth),
    st.text("01", min_size=1, max_size=12).map(Bits),
    st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(lambda name: name not in RESERVED).map(Symbol),
)


def calls(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.sampled_from(sorted(OPERATORS)).flatmap(
        lambda name: st.lists(inner, min_size=OPERATORS[name].arity[0], max_size=min(4, OPERATORS[name].arity[-1])).map(
            lambda arguments: Call(name, tuple(arguments))
        )
    )


expressions: st.SearchStrategy[Expression] = st.recursive(literals, calls, max_leaves=12)

PYTHON: dict[str, str] = {
    "sub": "({0} - {1})",
    "div": "Fraction({0}, {1})",
    "floordiv": "({0} // {1})",
    "mod": "({0} % {1})",
    "neg": "(-{0})",
    "abs": "abs({0})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "xor": "({0} ^ {1})",
    "not": "(not {0})",
    "if": "({1} if {0} else {2})",
}
VARIADIC = {"add": " + ", "mul": " * ", "and": " and ", "or": " or "}


def python(expression: Expression) -> str:
    """The same in Python."""
    match expression:
        case Number(value):
            return f"Fraction({value.numerator}, {value.denominator})"
        case Truth(value):
            return str(value)
        case Call(operator, arguments):
            parts = [python(argument) for argument in arguments]
            if operator in VARIADIC:
                return f"({VARIADIC[operator].join(parts)})"
            return PYTHON[operator].format(*parts) if operator in PYTHON else f"{operator}({', '.join(parts)})"
    raise AssertionError(expression)


def typed(number: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    """Calls of numbers that make numbers, with truths inside conditions."""

    def call(*names: str) -> Callable[..., st.SearchStrategy[Expression]]:
        return lambda *inner: st.tuples(st.sampled_from(names), *inner).map(lambda t: Call(t[0], t[1:]))

    compared = call("eq", "ne", "lt", "le", "gt", "ge")(number, number)
    truth = st.one_of(compared, call("and", "or", "xor")(compared, compared), call("not")(compared))
    return st.one_of(
        call("add", "mul", "min", "max")(number, number, number),
        call("sub", "div", "floordiv", "mod")(number, number),
        call("neg", "abs")(number),
        call("if")(truth, number, number),
    )


@given(expression=expressions)
def test_an_expression_survives_printing_and_parsing(expression: Expression) -> None:
    text = show(expression)
    assert parse(text) == expression
    assert show(parse(f"\n {text.replace('(', ' (  ').replace(')', ' ) ')}\t")) == text


@given(expression=st.recursive(numbers, typed, max_leaves=10))
def test_values_agree_with_python(expression: Expression) -> None:
    try:
        expected = eval(python(expression), {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(UndefinedValue, match="zero"):
            evaluate(expression)
        return
    assert evaluate(expression) == Number(expected)


@given(base=st.fractions(-9, 9, max_denominator=9), exponent=st.integers(-20, 20))
def test_powers_agree_with_python(base: Fraction, exponent: int) -> None:
    power = Call("pow", (Number(base), Number(Fraction(exponent))))
    if base == 0 and exponent < 0:
        with pytest.raises(UndefinedValue):
            evaluate(power)
    else:
        assert evaluate(power) == Number(base**exponent)


@given(left=st.integers(0, 255), right=st.integers(0, 255), places=st.integers(0, 10))
def test_bit_operations_agree_with_python(left: int, right: int, places: int) -> None:
    a, b = f"0b{left:08b}", f"0b{right:08b}"
    expected = {
        f"(bitand {a} {b})": left & right,
        f"(bitor {a} {b})": left | right,
        f"(bitxor {a} {b})": left ^ right,
        f"(bitnot {a})": ~left & 255,
        f"(shl {a} {places})": (left << places) & 255,
        f"(shr {a} {places})": left >> places,
    }
    for text, value in expected.items():
        assert evaluate(parse(text)) == Bits(f"{value:08b}"), text
    assert evaluate(parse(f"(tonum (concat {a} {b}))")) == Number(Fraction(left * 256 + right))


@given(expression=expressions)
def test_an_expression_has_a_value_or_a_reason(expression: Expression) -> None:
    assert equal(expression, expression)
    try:
        value = evaluate(expression)
    except UndefinedValue:
        return
    assert isinstance(value, Literal)
    assert equal(expression, value)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_refuses_a_wrong_number_of_arguments(name: str) -> None:
    arity = OPERATORS[name].arity
    for count in {arity[0] - 1, arity[-1] + 1} - {0}:
        with pytest.raises(MalformedExpression, match=rf"column 1: {name} takes .* arguments, not {count}"):
            parse(f"({name}{' 1' * count})")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "only white space"),
        ("(add 2 3", r"column 1: '\(add' is not closed"),
        ("(add 2 3))", "column 10: '\\)' follows a complete"),
        ("2 3", "column 3: '3' follows"),
        (")", "column 1: '\\)' closes nothing"),
        ("(add 2 (plus 1 1))", "column 9: no operator 'plus'. Known: add, sub"),
        ("((add 1 2) 3)", "column 2: an operator has to follow"),
        ("()", "column 2: an operator"),
        ("(", "column 2: an operator"),
        ("(add 2 $3)", "column 8: '\\$3' is neither"),
        ("(add 2 mul)", "column 8: mul is an operator"),
        ("(div 1 1/0)", "column 8: 1/0 divides by zero"),
        ("0b12", "column 1: '0b12'"),
        ("1" * 300, "at most 256"),
        ("(neg " * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), f"at most {MAX_DEPTH} deep"),
        ("(add " + "1 " * 6000 + ")", "at most 10000 characters"),
    ],
)
def test_a_malformed_expression_is_refused_with_its_column(text: str, says: str) -> None:
    with pytest.raises(MalformedExpression, match=says):
        parse(text)


@given(text=st.text("()add 0123/.-btruex", max_size=40))
def test_the_parser_accepts_or_refuses_any_text(text: str) -> None:
    try:
        expression = parse(text)
    except MalformedExpression:
        return
    assert parse(show(expression)) == expression


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(add 1 true)", "argument 2 of add is a truth, not a number"),
        ("(and true 1)", "argument 2 of and is a number, not a truth"),
        ("(div 1 (sub 2 2))", "zero"),
        ("(pow 2 1/2)", "integer"),
        ("(pow 9 999)", "integer from"),
        ("(pow (pow 9 200) 200)", "too large"),
        ("(pow 10 (neg 250))", None),
        ("(bitand 0b1 0b11)", "1 and 2 bits"),
        ("(shl 0b1 -1)", "places"),
        ("(eq 1 true)", "a number and a truth"),
        ("(if 1 2 3)", "argument 1 of if is a number"),
        ("(if false (div 1 0) 3)", None),
    ],
)
def test_an_expression_without_a_value_is_an_error_with_the_reason(text: str, says: str | None) -> None:
    expression = parse(text)
    if says is None:
        evaluate(expression)
        return
    with pytest.raises(UndefinedValue, match=says):
        evaluate(expression)


def test_products_stay_within_bounds() -> None:
    grown = "9" * 200
    with pytest.raises(UndefinedValue, match="too large"):
        evaluate(parse(f"(mul {' '.join([grown] * 20)})"))
    assert math.prod([int(grown)] * 20).bit_length() > 4096


@pytest.mark.parametrize(
    ("left", "right", "are_equal"),
    [
        ("(add 2 3)", "5", True),
        ("0.5", "1/2", True),
        ("2/4", "1/2", True),
        ("(add 2 3)", "(add 3 2)", True),
        ("(add x 1)", "(add x 1)", True),
        ("(add x 1)", "(add 1 x)", False),
        ("0b01", "0b1", False),
        ("1", "true", False),
        ("paris", "london", False),
        ("(div 1 0)", "(div 2 0)", False),
    ],
)
def test_expressions_are_equal_by_value(left: str, right: str, are_equal: bool) -> None:
    assert equal(parse(left), parse(right)) is are_equal


def test_literals_of_every_kind() -> None:
    found: list[Expression] = [parse(word) for word in ("-7/2", "0.50", "true", "0b010", "paris")]
    expected: list[Literal] = [
        Number(Fraction(-7, 2)),
        Number(Fraction(1, 2)),
        Truth(True),
        Bits("010"),
        Symbol("paris"),
    ]
    assert found == expected
    assert [show(literal) for literal in found] == ["-7/2", "1/2", "true", "0b010", "paris"]
