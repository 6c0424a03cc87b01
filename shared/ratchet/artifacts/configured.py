"""The artifact store that the settings name."""

from __future__ import annotations

from ratchet.artifacts.store import ArtifactStore
from ratchet.settings import Settings

GB = 1_000_000_000


def artifact_store(settings: Settings) -> ArtifactStore:
    """With the machine's cache where the store is remote. Raises SettingsError for a URL that cannot be opened."""
    return ArtifactStore(
        settings.artifact_url,
        settings.artifact_cache,
        cache_bytes=int(settings.artifacts.cache_gb * GB),
        options=settings.artifacts.options if settings.artifacts.url else None,
    )
