"""The declarative base and the column types that the tables share.

JSON columns reject values that are not valid JSON before they are written, and name the column. By default Python
writes NaN and infinities into JSON; SQLite would store them, PostgreSQL rejects them, and neither names the column.
Characters that a database cannot store are replaced by visible ones, since the answers of a model, and errors that
quote them, may hold any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, Column, Dialect, Double, Integer, MetaData, Text, TypeDecorator, event
from sqlalchemy.orm import DeclarativeBase, mapped_column

from ratchet.errors import NotJson

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with ␀ for NUL, which PostgreSQL refuses, and � for half a surrogate pair, which is no Unicode."""
    return _UNSTORABLE.sub(lambda found: "\u2400" if found[0] == "\0" else "\ufffd", text)


class Base(DeclarativeBase):
    """All tables of the ledger."""

    metadata = MetaData(naming_convention=NAMING)


class PlainJson(TypeDecorator[Any]):
    """JSON with finite numbers only. Raises NotJson, which names the column and the place in the value."""

    impl = JSON
    cache_ok = True
    column: Column[Any] | None = None

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - the base class's signature
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            where = next(_invalid_places(value), "value")
            raise NotJson(f"{self.column} takes plain JSON, and {where} is not: {error}.") from error
        return _storable_json(value) if "\\u0000" in text or "\\ud" in text else value


@event.listens_for(PlainJson, "before_parent_attach", propagate=True)
def _remember_column(json_type: PlainJson, column: Column[Any]) -> None:
    """Each column has its own copy of the type; the copy keeps a reference, so that an error can name the column."""
    json_type.column = column


def _storable_json(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {_storable_json(name): _storable_json(part) for name, part in value.items()}
    return [_storable_json(part) for part in value] if isinstance(value, list | tuple) else value


def _invalid_places(value: Any, place: str = "value") -> Iterator[str]:
    """``value.losses[2]``, for each number that is not finite and each value that JSON cannot express."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _invalid_places(part, f"{place}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, part in enumerate(value):
            yield from _invalid_places(part, f"{place}[{number}]")
    elif isinstance(value, float):
        if not isfinite(value):
            yield f"{place} = {value}"
    elif not isinstance(value, str | int | None):
        yield f"{place} ({type(value).__name__})"


Id = Annotated[str, mapped_column(Text, primary_key=True)]
Serial = Annotated[
    int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
]
Float = Annotated[float, mapped_column(Double)]
Json = Annotated[dict[str, Any], mapped_column(PlainJson)]
BigInt = Annotated[int, mapped_column(BigInteger)]
