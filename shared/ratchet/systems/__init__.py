"""What a system is, which there are, and the controller that turns each of them."""

from ratchet.systems.system import Lane, System
from ratchet.systems.verdict import NotReady, Outcome, Subject, Verdict
from ratchet.systems.work import Work

__all__ = ["Lane", "NotReady", "Outcome", "Subject", "System", "Verdict", "Work"]
