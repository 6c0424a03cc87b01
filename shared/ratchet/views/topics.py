"""Topics of the ledger as tables: what `ratchet show` prints and the web page shows.

A topic is a function of a Reader and options. Those about checkpoints are in checkpoint_topics and comparison, the
others in data_topics, coverage and mining_topics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from sqlalchemy.orm import Session

from ratchet.ledger import Ledger
from ratchet.settings import Settings


@dataclass(frozen=True)
class Reader:
    """What a topic is read from: one consistent session on the ledger, and the settings of this home."""

    settings: Settings
    ledger: Ledger
    session: Session


def _as_mapping(row: Any) -> Mapping[str, Any]:
    return asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)


@dataclass(frozen=True)
class Table:
    """Rows of any type, and how they are shown.

    ``columns`` maps a heading (right-aligned if it begins with ``>``) to a function of a row. ``values`` turns a row
    into a JSON record, and ``name`` is the key of these records in the JSON.
    """

    name: str
    rows: Sequence[Any]
    columns: Mapping[str, Callable[[Any], object]]
    values: Callable[[Any], Mapping[str, Any]] = _as_mapping
    title: str | None = None


@dataclass(frozen=True)
class Topic:
    """Tables, with text before and after them, or ``empty`` if no table has a row.

    ``json_fields`` stand beside the tables in the JSON.
    """

    tables: Sequence[Table]
    lead: str = ""
    note: str = ""
    empty: str = ""
    json_fields: Mapping[str, Any] = field(default_factory=dict)
