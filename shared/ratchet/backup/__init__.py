"""Backups: one folder with a copy of the ledger and of every artifact, and the way back from it."""

from ratchet.backup.make import Made, make
from ratchet.backup.manifest import BackupManifest, LedgerCopy
from ratchet.backup.restore import restore

__all__ = ["BackupManifest", "LedgerCopy", "Made", "make", "restore"]
