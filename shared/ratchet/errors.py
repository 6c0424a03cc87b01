"""Ratchet's exceptions. Each class says when it is raised, and each message names a remedy."""

from __future__ import annotations


class RatchetError(Exception):
    """Base of every error Ratchet raises on purpose."""


class TransientError(RatchetError):
    """The ledger, Redis, a disk or a server is unavailable. It never counts against a subject; the work is retried."""


class SettingsError(RatchetError):
    """A setting is unknown, out of range, or contradicts another or the locked record."""


class ArtifactError(RatchetError):
    """An artifact is half-written, truncated, altered or absent. Names the file.

    ``artifact`` is its id, if it is an artifact of the store.
    """

    artifact: str | None = None


class BrokenCheckpoint(ArtifactError):
    """A checkpoint cannot answer: a file is missing, weights are not finite, or the vocabulary does not fit."""


class DataError(RatchetError):
    """A row or a file of examples cannot be read or trained on. Names the file and the line."""


class UnknownShape(DataError):
    """A row matches none of the known record shapes."""


class MalformedExpression(DataError):
    """A prefix expression does not parse, or its markers are in the wrong places. Names the column."""


class NotJson(DataError):
    """A value for a JSON column of the ledger is not plain JSON: NaN, an infinity, or a type that JSON lacks."""


class UndefinedValue(DataError):
    """A prefix expression parses but has no value: a division by zero, an argument of another kind, too large."""


class UnknownPlugin(RatchetError):
    """A name is not among the registered plug-ins of its group; the message lists the known ones."""


class EventError(RatchetError):
    """An event cannot be decoded: not JSON, unknown name, or an unknown major version."""


class ClaimLost(RatchetError):
    """A commit carried a stale fencing token: another worker has taken the subject over."""


class Stopping(RatchetError):
    """The worker was asked to stop. The subject's claim is released without counting a failure."""


class ChildFailed(RatchetError):
    """A child process raised, was killed, or stopped making progress.

    ``killed``: it died by a signal that Ratchet did not send; ``out_of_memory``: its device or host had no memory left;
    ``error_type`` names the class of the exception, if it raised one; ``trace`` is its traceback or the end of its log.
    """

    def __init__(
        self,
        message: str,
        *,
        killed: bool = False,
        out_of_memory: bool = False,
        error_type: str = "",
        trace: str = "",
    ):
        super().__init__(message)
        self.killed = killed
        self.out_of_memory = out_of_memory
        self.error_type = error_type
        self.trace = trace


class GenerationError(RatchetError):
    """A model server or a local model failed to answer. Such a failure is never graded as a wrong answer."""


class ReasoningOnly(GenerationError):
    """A model server spends its answers on reasoning, without a text."""


class EmptyEvaluation(RatchetError):
    """An evaluation graded no item, so its accuracy is undefined."""


class NotComparable(RatchetError):
    """Two records differ in more than the weights (suite, grader, decoding, dtype, engine or GPU class)."""


class TrainingError(RatchetError):
    """A training run cannot start or continue; the message names the field or the row."""


class ResumeError(TrainingError):
    """A saved training state is incomplete, or belongs to other weights, rows or settings."""


class Diverged(TrainingError):
    """The training loss is not finite, or far above the loss of random guessing."""


class ChatTemplateError(RatchetError):
    """A chat template cannot carry an answer: no end token, or a prompt that differs between training and serving."""


class ServingError(RatchetError):
    """The inference server refused or failed a load, a check or a switch."""


class UnusableCheckpoint(ServingError):
    """The inference server cannot load a checkpoint whose files are damaged or are not the named ones."""


class PreconditionFailed(RatchetError):
    """A command is not possible in the current state; the message says what is needed."""


class AlreadySubmitted(PreconditionFailed):
    """The same rows were submitted before."""


class ChangedMeanwhile(PreconditionFailed):
    """Another process has changed what was read before; trying again may succeed."""


class DamagedLedger(PreconditionFailed):
    """The file of an SQLite ledger is not a database, or is damaged."""


class LedgerBehind(PreconditionFailed):
    """The ledger has an older schema than this version, or none yet."""
