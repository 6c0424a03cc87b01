"""The declaration of a system, the registry of installed systems, and the controller that runs them."""

from ratchet.systems.claims import Subject
from ratchet.systems.system import Lane, System
from ratchet.systems.work import NotReady, Outcome, Reconciled, Verdict, Work

__all__ = ["Lane", "NotReady", "Outcome", "Reconciled", "Subject", "System", "Verdict", "Work"]
