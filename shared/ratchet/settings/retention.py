"""How much disk old checkpoints may take."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class RetentionSettings(Section):
    """Old checkpoints are deleted by bytes; champion, rollback target, newest and claimed ones never."""

    checkpoints_gb: float = Field(100.0, gt=0, description="Bytes of checkpoints kept, in GB.")
