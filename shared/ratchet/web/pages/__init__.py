"""The pages, in the order of the menu."""

from __future__ import annotations

from ratchet.web.pages import (
    checkpoints,
    curriculum,
    data,
    journal,
    live,
    mistakes,
    now,
    playground,
    settings,
    systems,
)
from ratchet.web.site import Page

PAGES: tuple[Page, ...] = (
    now.PAGE,
    checkpoints.PAGE,
    live.PAGE,
    data.PAGE,
    curriculum.PAGE,
    mistakes.PAGE,
    playground.PAGE,
    systems.PAGE,
    journal.PAGE,
    settings.PAGE,
)
