from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from trainer.retention import Kept, expendable

KEPT = st.lists(
    st.builds(lambda ordinal, size: Kept(f"c{ordinal}", ordinal, size), st.integers(0, 50), st.integers(0, 100)),
    unique_by=lambda kept: kept.ordinal,
    max_size=15,
)


def five(size: int = 10) -> list[Kept]:
    return [Kept(f"c{ordinal}", ordinal, size) for ordinal in range(5)]


def test_nothing_goes_while_it_fits() -> None:
    assert expendable(five(), (), 50) == []


def test_the_oldest_go_first_and_no_more_than_needed() -> None:
    assert expendable(five(), (), 25) == ["c0", "c1", "c2"]


def test_a_protected_one_stays_and_a_newer_one_goes_instead() -> None:
    assert expendable(five(), {"c0", "c2"}, 30) == ["c1", "c3"]


def test_the_newest_stays_however_large() -> None:
    assert expendable([Kept("c7", 7, 1_000)], (), 1) == []
    assert expendable([], (), 1) == []


@given(KEPT, st.sets(st.integers(0, 50)), st.integers(0, 800))
def test_protected_and_newest_never_go_and_nothing_goes_in_vain(kept: list[Kept], chosen: set[int], limit: int) -> None:
    protected = {f"c{ordinal}" for ordinal in chosen}
    gone = expendable(kept, protected, limit)
    assert not protected & set(gone)
    if kept:
        assert max(kept, key=lambda k: k.ordinal).id not in gone
    sizes = {k.id: k.size_bytes for k in kept}
    left = sum(sizes.values()) - sum(sizes[id] for id in gone)
    if gone:
        assert left + sizes[gone[-1]] > limit
    could_go = set(sizes) - protected - set(gone) - {max(kept, key=lambda k: k.ordinal).id if kept else ""}
    assert left <= limit or not could_go
