"""What batches cover: the topic with its tables, and a map of family by level that shows where too few rows came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select

from ratchet.ledger.tables import BatchRow, CoverageRow
from ratchet.views.topics import Reader, Table, Topic
from ratchet.wording import when

Numbers = Mapping[str, Any]

GAP = 0.05
"""A level that falls short of its share by this much is marked; less is chance."""


class BatchCoverage(NamedTuple):
    """What a batch covers, and its origin."""

    row: CoverageRow
    origin: str

    @property
    def texts(self) -> Numbers:
        return self.row.numbers.get("texts") or {}

    @property
    def near(self) -> str:
        texts = self.texts
        found = texts.get("repeats", 0) + texts.get("known", 0)
        return f"{found} of {texts['compared']}" if texts.get("compared") else ""

    @property
    def new_runs(self) -> str:
        runs = self.texts.get("runs", 0)
        return f"{100 * self.texts['new_runs'] / runs:.0f}" if runs else ""

    def values(self) -> dict[str, Any]:
        return {"batch_id": self.row.batch_id, "origin": self.origin, **self.row.numbers}


def newest_coverage(reader: Reader, limit: int) -> list[BatchCoverage]:
    """What was measured over that many batches, the newest first."""
    newest = select(CoverageRow.batch_id).order_by(CoverageRow.created_at.desc()).limit(limit)  # their numbers are long
    query = select(CoverageRow, BatchRow.origin).join(BatchRow, BatchRow.id == CoverageRow.batch_id)
    query = query.where(CoverageRow.batch_id.in_(newest.scalar_subquery())).order_by(CoverageRow.created_at.desc())
    return [BatchCoverage(*row) for row in reader.session.execute(query)]


def cells_table(row: CoverageRow) -> Table:
    """The levels of one batch."""
    cells = {
        "level": lambda cell: f"{cell['family']} {cell['level']}",
        ">rows": lambda cell: cell["rows"],
        ">share %": lambda cell: f"{100 * cell['share']:.1f}",
        ">wanted %": lambda cell: f"{100 * cell['wanted']:.1f}",
        ">gap %": lambda cell: f"{100 * cell['gap']:.0f}" if cell["gap"] else "",
        "features, % of the rows": _features,
        "absent": lambda cell: ", ".join(cell.get("absent", ())),
    }
    return Table("cells", row.numbers.get("cells", ()), cells, title=f"Batch {row.batch_id[:6]}")


def coverage(reader: Reader, limit: int = 10) -> Topic:
    """Show what the newest batches cover, and what is missing.

    `new` is the share of distinct items that no earlier batch had, `new runs` the same for runs of three words. Entropy
    is 1 if all levels have equally many rows. A gap is how far a level falls short of its share in the mix.
    """
    found = newest_coverage(reader, limit)
    batches = {
        "batch": lambda c: c.row.batch_id[:6],
        "of": lambda c: c.origin,
        ">rows": lambda c: f"{c.row.numbers.get('rows', 0):,}",
        ">new %": lambda c: f"{100 * c.row.numbers.get('novelty', 0.0):.0f}",
        ">duplicates": lambda c: f"{c.row.numbers.get('duplicates', 0):,}",
        ">near": lambda c: c.near,
        ">new runs %": lambda c: c.new_runs,
        ">entropy": lambda c: f"{c.row.numbers.get('entropy', 0.0):.2f}",
        ">features": lambda c: f"{c.row.numbers.get('feature_entropy', 0.0):.2f}",
        "at": lambda c: when(c.row.created_at),
    }
    newest = found[0].row if found else None
    tables = [
        cells_table(newest) if newest else None,
        Table("batches", found, batches, BatchCoverage.values, "Batches"),
    ]
    return Topic([table for table in tables if table is not None], empty="no batch has been analysed yet.")


def _features(cell: Numbers) -> str:
    rows = cell["rows"]
    return ", ".join(f"{name} {100 * n / rows:.0f}" for name, n in cell.get("features", {}).items()) if rows else ""


@dataclass(frozen=True)
class MapCell:
    """Rows of a family and level. ``gap``: how far their share falls short of the one in the mix, 0 not at all."""

    family: str
    level: int
    rows: int
    share: float
    wanted: float
    gap: float
    absent: tuple[str, ...]
    heat: int

    @property
    def is_gap(self) -> bool:
        return self.gap >= GAP or bool(self.absent)


@dataclass(frozen=True)
class CoverageMap:
    """``lines`` have the cells of a family by level, None where no row was."""

    lines: Sequence[tuple[str, Sequence[MapCell | None]]]
    levels: Sequence[int]
    batches: Sequence[BatchCoverage]
    rows: int

    @property
    def gaps(self) -> list[MapCell]:
        """The marked cells, the widest gap first."""
        cells = [cell for _, line in self.lines for cell in line if cell is not None and cell.is_gap]
        return sorted(cells, key=lambda cell: -cell.gap)


def coverage_map(reader: Reader, limit: int = 10) -> CoverageMap:
    """Of that many of the newest batches. Gaps count those that were made for a mix."""
    found = newest_coverage(reader, limit)
    rows, mixed, wanted = Counter[tuple[str, int]](), Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    total_mixed = 0
    absent: dict[tuple[str, int], tuple[str, ...]] = {}
    for covered in reversed(found):
        cells = covered.row.numbers.get("cells", ())
        is_mixed = any(cell["wanted"] for cell in cells)
        size = sum(cell["rows"] for cell in cells)
        total_mixed += size if is_mixed else 0
        for cell in cells:
            key = (str(cell["family"]), int(cell["level"]))
            rows[key] += cell["rows"]
            absent[key] = tuple(cell.get("absent", ()))  # of the newest batch that has the level
            if is_mixed:
                mixed[key] += cell["rows"]
                wanted[key] += cell["wanted"] * size
    most, total = max(rows.values(), default=0), rows.total()
    levels = sorted({level for _, level in rows})

    def cell_of(key: tuple[str, int]) -> MapCell | None:
        if key not in rows:
            return None
        asked = wanted[key]
        return MapCell(
            family=key[0],
            level=key[1],
            rows=rows[key],
            share=rows[key] / total if total else 0.0,
            wanted=asked / total_mixed if total_mixed else 0.0,
            gap=max(0.0, 1 - mixed[key] / asked) if asked else 0.0,
            absent=absent[key],
            heat=round(10 * rows[key] / most) if most else 0,
        )

    families = sorted({family for family, _ in rows})
    lines = [(family, [cell_of((family, level)) for level in levels]) for family in families]
    return CoverageMap(lines, levels, found, total)
