"""The one spelling of an expression."""

from __future__ import annotations

from ratchet.profiles.regime3.expression import Bits, Call, Expression, Number, Symbol, Truth


def show(expression: Expression) -> str:
    """Single spaces, fractions in lowest terms, integers without a point. Parsing it gives the expression again."""
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
