"""The rows of one ledger into another of the same schema, on whichever engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.engine import Connection

from ratchet.ledger.tables import Base

CHUNK_ROWS = 1000
TABLES: Sequence[Table] = Base.metadata.sorted_tables
"""Each after those that it refers to."""

Row = dict[str, Any]


def copy_rows(source: Connection, target: Connection) -> None:
    """Copy all rows; the caller holds both transactions. ``target`` has the schema and no row."""
    for table in TABLES:
        for rows in _chunks(table, source):
            target.execute(insert(table), rows)
    if target.dialect.name == "postgresql":
        _set_sequences(target)


def delete_rows(connection: Connection) -> None:
    """Empty all tables."""
    for table in reversed(TABLES):
        connection.execute(table.delete())


def count_rows(connection: Connection) -> dict[str, int]:
    """Rows by table."""
    return {
        table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one()) for table in TABLES
    }


def _chunks(table: Table, source: Connection) -> Iterator[list[Row]]:
    rows = source.execution_options(yield_per=CHUNK_ROWS).execute(select(table))
    if (parent := _parent_column(table)) is not None:
        ordered = _parents_first([dict(row._mapping) for row in rows], parent)
        yield from (ordered[at : at + CHUNK_ROWS] for at in range(0, len(ordered), CHUNK_ROWS))
        return
    for part in rows.partitions():
        yield [dict(row._mapping) for row in part]


def _parent_column(table: Table) -> str | None:
    """The column that refers to a row of the same table."""
    for column in table.columns:
        if any(key.column.table is table for key in column.foreign_keys):
            return column.name
    return None


def _parents_first(rows: list[Row], parent: str) -> list[Row]:
    """The rows in an order in which each comes after the one that it refers to."""
    children: dict[str | None, list[Row]] = {}
    for row in rows:
        children.setdefault(row[parent], []).append(row)
    ordered = list(children.get(None, ()))
    for row in ordered:
        ordered.extend(children.get(row["id"], ()))
    return ordered


def _set_sequences(connection: Connection) -> None:
    """Let PostgreSQL number new rows after those that came with their numbers."""
    for table in TABLES:
        for column in table.primary_key.columns:
            place = {"table": table.name, "column": column.name}
            sequence = connection.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), place).scalar()
            if sequence is not None:
                last = connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()
                connection.execute(
                    text("SELECT setval(:sequence, :next, false)"), {"sequence": sequence, "next": last + 1}
                )
