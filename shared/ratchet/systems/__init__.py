"""What a system is, which systems there are, and the controller that runs each of them."""

from ratchet.systems.claims import Subject
from ratchet.systems.system import Lane, System
from ratchet.systems.work import NotReady, Outcome, Reconciled, Verdict, Work

__all__ = ["Lane", "NotReady", "Outcome", "Reconciled", "Subject", "System", "Verdict", "Work"]
