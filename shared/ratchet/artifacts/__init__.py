"""Immutable, content-addressed bytes: checkpoints, states, batches, records, suites, reports."""

from ratchet.artifacts.manifest import Kind, Manifest, ManifestFile, weights_digest
from ratchet.artifacts.store import Artifact, ArtifactStore

__all__ = ["Artifact", "ArtifactStore", "Kind", "Manifest", "ManifestFile", "weights_digest"]
