"""The page Curriculum: what is taught next and why, the experiment that chooses it, its trials, and earlier mixes."""

from __future__ import annotations

from typing import Any

from ratchet.errors import PreconditionFailed
from ratchet.user_tasks.supply import CORRECTION_PATIENCE, MOST_PASSES, PATIENCE
from ratchet.views.curriculum_state import experiment_of, mix_map, old_mixes, read_mix, taught_tasks
from ratchet.views.data_topics import curriculum
from ratchet.views.topics import Reader
from ratchet.web.paging import address_with, begins_before
from ratchet.web.site import Page, Query

TRIALS = 12


def read(reader: Reader, query: Query) -> dict[str, Any]:
    session = reader.session
    number = begins_before(query, "mix")
    row = read_mix(session, number)
    if row is None and number is not None:
        raise PreconditionFailed(f"there is no mix {number}; the history of mixes is under Curriculum.")
    tasks = taught_tasks(session)
    frame = {
        "tasks": tasks,
        "families": [family.name for family in reader.settings.suites.families],
        "patience": PATIENCE,
        "correction_patience": CORRECTION_PATIENCE,
        "most_passes": MOST_PASSES,
    }
    if row is None:
        return {**frame, "row": None}
    older, more = old_mixes(session, begins_before(query))
    return {
        **frame,
        "row": row,
        "is_old": number is not None,
        "map": mix_map(row.mix, row.mastery),
        "others": [mix_map(mix, row.mastery) for name, mix in row.mixes.items() if name != row.mix.get("strategy")],
        "shares": row.mix.get("shares", ()),
        "experiment": experiment_of(session, row),
        "trials": next(table for table in curriculum(reader, TRIALS).tables if table.name == "newest_trials"),
        "old": older,
        "older": address_with(query, "history", before=more) if more is not None else None,
    }


PAGE = Page("curriculum", "Curriculum", "/curriculum", "What is taught next, and which mix teaches best.", read)
