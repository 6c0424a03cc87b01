"""Backups: a folder with a copy of the ledger and of every artifact, and restoring from it."""

from ratchet.backup.backup import BackupManifest, FinishedBackup, LedgerCopy, make
from ratchet.backup.restore import restore

__all__ = ["BackupManifest", "FinishedBackup", "LedgerCopy", "make", "restore"]
