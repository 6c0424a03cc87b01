from __future__ import annotations

from collections import deque

import pytest
from ratchet.data.usage_counts import UsageCounts
from ratchet.errors import TransientError


def test_keys_are_counted() -> None:
    counts = UsageCounts()
    counts.add("one")
    counts.add("one")
    assert (counts["one"], counts["other"]) == (2, 0)
    counts.close()


def test_a_full_disk_of_temporary_files_counts_against_no_batch() -> None:
    counts = UsageCounts()
    counts._database.execute("PRAGMA max_page_count = 4")
    with pytest.raises(TransientError, match=r"disk is full.*SQLITE_TMPDIR"):
        deque(map(counts.add, map(str, range(10_000))), maxlen=0)
    counts.close()
