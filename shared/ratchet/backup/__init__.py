"""Backups: one folder with a copy of the ledger and of every artifact, and the way back from it."""

from ratchet.backup.backup import BackupManifest, FinishedBackup, LedgerCopy, make
from ratchet.backup.restore import restore

__all__ = ["BackupManifest", "FinishedBackup", "LedgerCopy", "make", "restore"]
