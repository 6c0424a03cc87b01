"""A mined set as it lies in the artifact store."""

from __future__ import annotations

from ratchet.artifacts import ArtifactStore

from miner.mining import MinedItem


def read_mined(artifacts: ArtifactStore, artifact_id: str) -> list[MinedItem]:
    """The items of a mined set, the weakest first."""
    return [MinedItem.model_validate_json(line) for line in artifacts.open_lines(artifact_id)]
