"""Immutable, content-addressed bytes: checkpoints, states, batches, records, suites, reports."""

from ratchet.artifacts.artifact_store import Artifact, ArtifactStore
from ratchet.artifacts.local_artifacts import ArtifactFolder
from ratchet.artifacts.manifest import Kind, Manifest, ManifestFile, weights_digest

__all__ = ["Artifact", "ArtifactFolder", "ArtifactStore", "Kind", "Manifest", "ManifestFile", "weights_digest"]
