from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from trainer.publish import StoredCheckpoint, select_for_deletion

KEPT = st.lists(
    st.builds(
        lambda ordinal, size: StoredCheckpoint(f"c{ordinal}", ordinal, size), st.integers(0, 50), st.integers(0, 100)
    ),
    unique_by=lambda kept: kept.ordinal,
    max_size=15,
)


def five(size: int = 10) -> list[StoredCheckpoint]:
    return [StoredCheckpoint(f"c{ordinal}", ordinal, size) for ordinal in range(5)]


def test_nothing_goes_while_it_fits() -> None:
    assert select_for_deletion(five(), (), 50) == []


def test_the_oldest_go_first_and_no_more_than_needed() -> None:
    assert select_for_deletion(five(), (), 25) == ["c0", "c1", "c2"]


def test_a_protected_one_stays_and_a_newer_one_goes_instead() -> None:
    assert select_for_deletion(five(), {"c0", "c2"}, 30) == ["c1", "c3"]


def test_the_newest_stays_however_large() -> None:
    assert select_for_deletion([StoredCheckpoint("c7", 7, 1_000)], (), 1) == []
    assert select_for_deletion([], (), 1) == []


@given(KEPT, st.sets(st.integers(0, 50)), st.integers(0, 800))
def test_protected_and_newest_never_go_and_nothing_goes_in_vain(
    kept: list[StoredCheckpoint], chosen: set[int], limit: int
) -> None:
    protected = {f"c{ordinal}" for ordinal in chosen}
    gone = select_for_deletion(kept, protected, limit)
    assert not protected & set(gone)
    if kept:
        assert max(kept, key=lambda k: k.ordinal).id not in gone
    sizes = {k.id: k.size_bytes for k in kept}
    left = sum(sizes.values()) - sum(sizes[id] for id in gone)
    if gone:
        assert left + sizes[gone[-1]] > limit
    could_go = set(sizes) - protected - set(gone) - {max(kept, key=lambda k: k.ordinal).id if kept else ""}
    assert left <= limit or not could_go
