"""The growing file of one suite's item records, so that a killed run can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from ratchet.atomic_files import atomic_write
from ratchet.disk import disk_errors
from ratchet.evaluation.record import ItemRecord, records_to_lines


class RecordLog:
    """Records in ``<name>.part.jsonl``, in the order of answering, with the conditions as first line.

    A file of other conditions is discarded; a torn or foreign line and all after it are dropped. ``earlier`` are
    folders of killed runs: their longest file is continued from, and left as it is. ``finish`` writes
    ``<name>.items.jsonl``.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        conditions: dict[str, str],
        item_ids: Sequence[str],
        earlier: Sequence[Path] = (),
    ):
        self._part = folder / f"{name}.part.jsonl"
        self._final = folder / f"{name}.items.jsonl"
        self._head = json.dumps(conditions, sort_keys=True) + "\n"
        self._item_ids = item_ids
        found = [self._recovered(place / self._part.name) for place in (folder, *earlier)]
        self._records: dict[str, ItemRecord] = {}
        self._lines: dict[str, str] = {}
        atomic_write(self._part, self._head + self._added(max(found, key=len)), durable=True)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._records

    def append(self, records: Iterable[ItemRecord]) -> None:
        """Add records, in one write; those of items that have one already are left out."""
        new = [record for record in records if record.item_id not in self._records]
        with disk_errors(self._part.parent), self._part.open("a", encoding="utf-8") as file:
            file.write(self._added(new))

    def finish(self) -> tuple[Path, tuple[ItemRecord, ...]]:
        """Write all records in the suite's order to ``<name>.items.jsonl`` and return it with them."""
        records = tuple(self._records[item_id] for item_id in self._item_ids)
        atomic_write(self._final, "".join(self._lines[item_id] for item_id in self._item_ids), durable=True)
        return self._final, records

    def _added(self, records: Sequence[ItemRecord]) -> str:
        """Remember records; returns their lines."""
        lines = {record.item_id: records_to_lines([record]) for record in records}
        self._lines.update(lines)
        self._records.update((record.item_id, record) for record in records)
        return "".join(lines.values())

    def _recovered(self, part: Path) -> list[ItemRecord]:
        try:
            with part.open(encoding="utf-8", errors="replace", newline="\n") as file:
                head, *lines = file.readlines() or [""]
        except FileNotFoundError:
            return []
        if head != self._head:
            return []
        known = set(self._item_ids)
        records = []
        for line in lines:
            try:
                record = ItemRecord.model_validate_json(line)
            except ValidationError:
                break
            if not line.endswith("\n") or record.item_id not in known:
                break
            records.append(record)
        return records
