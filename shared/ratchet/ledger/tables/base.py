"""The declarative base and the column types that tables share."""

from __future__ import annotations

from typing import Annotated, Any

from sqlalchemy import BigInteger, Double, Integer, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, mapped_column

from ratchet.ledger.tables.plain_json import PlainJson

Id = Annotated[str, mapped_column(Text, primary_key=True)]
Serial = Annotated[
    int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
]
Moment = Annotated[float, mapped_column(Double)]
Json = Annotated[dict[str, Any], mapped_column(PlainJson)]
Size = Annotated[int, mapped_column(BigInteger)]

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """All tables of the ledger."""

    metadata = MetaData(naming_convention=NAMING)
