"""What a row of the ledger says in the place of an artifact's id, once retention has removed the artifact.

It is apart from the artifact store, whose file systems are slow to import, for views that only read rows.
"""

from __future__ import annotations

REMOVED = "removed by retention after "
"""How such a value begins."""


def removed_after(days: int) -> str:
    """The value for an artifact that was removed after so many days. The store raises an ArtifactError with its words
    when it is asked for it."""
    return f"{REMOVED}{days} days"


def is_removed(artifact: str | None) -> bool:
    return artifact is not None and artifact.startswith(REMOVED)
