"""Models live in children: processes forked from a server that has torch imported, freed by exiting."""

from ratchet.children.runner import ChildRunner

__all__ = ["ChildRunner"]
