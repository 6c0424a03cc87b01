"""The one setting schema. Precedence: command line > environment > file > defaults."""

from ratchet.settings.section import Section
from ratchet.settings.settings import Settings, load

__all__ = ["Section", "Settings", "load"]
