"""How far mining searches for weak answers."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class MiningSettings(Section):
    """Budget of the search; how many items are handed on is queue.mined_items."""

    search_items: int = Field(
        240, ge=0, description="Fresh problems that the search asks a checkpoint; 0 mines the probe record alone."
    )
    round_items: int = Field(48, ge=1, description="Problems asked between two decisions of the search.")
