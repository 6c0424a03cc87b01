"""The page Settings: every setting in force, where it comes from and what it does. It changes none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ratchet.settings.origins import origins_of
from ratchet.views.settings_in_force import locked_values, read_settings
from ratchet.views.topics import Reader
from ratchet.web.paging import address_with
from ratchet.web.site import Page, Query

MOST_TEXT = 200


def read(reader: Reader, query: Query) -> dict[str, Any]:
    text, only_changed = query.get("q", "")[:MOST_TEXT], query.get("changed") == "1"
    origins = origins_of(reader.settings, reader.settings.web_home)
    sections = read_settings(reader.session, reader.settings, origins)
    words = text.casefold().split()
    found = [
        replace(
            section,
            settings=tuple(
                each for each in section.settings if each.matches(words) and (each.is_changed or not only_changed)
            ),
        )
        for section in sections
    ]
    everything = [each for section in sections for each in section.settings]
    return {
        "sections": [section for section in found if section.settings],
        "count": sum(len(section.settings) for section in found),
        "in_all": len(everything),
        "changed_count": sum(each.is_changed for each in everything),
        "pending_count": sum(each.pending is not None for each in everything),
        "text": text,
        "only_changed": only_changed,
        "other": address_with(query, changed=None if only_changed else 1),
        "note": origins.note,
        "locked": locked_values(reader.session),
    }


PAGE = Page("settings", "Settings", "/settings", "What is in force, and where it comes from.", read)
