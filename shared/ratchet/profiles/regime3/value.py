"""What an expression comes to, and when two are equal."""

from __future__ import annotations

from ratchet.errors import UndefinedValue
from ratchet.profiles.regime3.expression import Call, Expression, Literal, Truth
from ratchet.profiles.regime3.operators import OPERATORS


def evaluate(expression: Expression) -> Literal:
    """The value, exactly. Raises UndefinedValue where there is none."""
    if not isinstance(expression, Call):
        return expression
    operator, arguments = OPERATORS[expression.operator], expression.arguments
    if operator.name == "if":
        condition = evaluate(arguments[0])
        if isinstance(condition, Truth):
            return evaluate(arguments[1 if condition.value else 2])
    return operator(*map(evaluate, arguments))


def equal(left: Expression, right: Expression) -> bool:
    """Whether two expressions are the same, or come to the same value."""
    if left == right:
        return True
    try:
        return evaluate(left) == evaluate(right)
    except UndefinedValue:
        return False
