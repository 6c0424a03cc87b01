"""By the file of tests, below tests/: the test that changes a setting and sees what changes; its settings."""

from __future__ import annotations

from . import library, services, trainer

SHOWN = library.SHOWN | services.SHOWN | trainer.SHOWN
