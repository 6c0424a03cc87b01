"""The ledger's tables, one module a theme. Times are epoch seconds of the ledger's own clock."""

from ratchet.ledger.tables.base import Base
from ratchet.ledger.tables.control import Claim, Counter, Damage, DeadLetter, Locked, Outbox, Verdict, Worker
from ratchet.ledger.tables.data import Batch, Coverage, Curriculum, Impact, ItemUse, Mined, Spending, Trial
from ratchet.ledger.tables.forks import Branch, Fork
from ratchet.ledger.tables.judging import (
    Calibration,
    Evaluation,
    EvaluationRequest,
    Ranking,
    Regression,
    SuiteRow,
)
from ratchet.ledger.tables.models import Bar, Challenge, Checkpoint, Deployment, Line, Serving

__all__ = [
    "Bar",
    "Base",
    "Batch",
    "Branch",
    "Calibration",
    "Challenge",
    "Checkpoint",
    "Claim",
    "Counter",
    "Coverage",
    "Curriculum",
    "Damage",
    "DeadLetter",
    "Deployment",
    "Evaluation",
    "EvaluationRequest",
    "Fork",
    "Impact",
    "ItemUse",
    "Line",
    "Locked",
    "Mined",
    "Outbox",
    "Ranking",
    "Regression",
    "Serving",
    "Spending",
    "SuiteRow",
    "Trial",
    "Verdict",
    "Worker",
]
