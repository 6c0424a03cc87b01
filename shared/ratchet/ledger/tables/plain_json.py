"""The ledger's JSON columns. What no JSON reader can read is refused before it is written, and the column is named.

Python writes NaN and infinities into JSON unless it is told not to; SQLite would keep them, PostgreSQL refuses them,
and neither says where they came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from sqlalchemy import JSON, Column, Dialect, TypeDecorator, event

from ratchet.errors import NotJson


class PlainJson(TypeDecorator[Any]):
    """JSON that holds finite numbers alone. Raises NotJson, naming column and place."""

    impl = JSON
    cache_ok = True
    column: Column[Any] | None = None

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - the base class's signature
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            where = next(_places_of_trouble(value), "value")
            raise NotJson(f"{self.column} takes plain JSON, and {where} is not: {error}.") from error
        return value


@event.listens_for(PlainJson, "before_parent_attach", propagate=True)
def _know_the_column(json_type: PlainJson, column: Column[Any]) -> None:
    """Every column has a copy of the type; it is told which one, so that an error can name it."""
    json_type.column = column


def _places_of_trouble(value: Any, place: str = "value") -> Iterator[str]:
    """``value.losses[2]``, for each number that is not finite and each thing that JSON has no word for."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _places_of_trouble(part, f"{place}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, part in enumerate(value):
            yield from _places_of_trouble(part, f"{place}[{number}]")
    elif isinstance(value, float):
        if not isfinite(value):
            yield f"{place} = {value}"
    elif not isinstance(value, str | int | None):
        yield f"{place} ({type(value).__name__})"
