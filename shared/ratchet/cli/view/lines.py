"""The view where there is no terminal: one line a change, nothing repeated."""

from __future__ import annotations

from datetime import datetime

from ratchet.cli.view import words
from ratchet.cli.view.happenings import Mark, mark, recent
from ratchet.cli.view.scene import Scene
from ratchet.ledger import Ledger

TRAINING_EVERY_S = 10.0
PREVIEW_WIDTH = 120
MOST = 200
"""Lines told at once; more than that happens only to somebody who did not look for long."""


class Teller:
    """Tells what is new since it last told. It starts at the ledger's present end."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        with ledger.read() as session:
            self._mark = mark(session)
        self._training_at = 0.0
        self._training = ""
        self._told_levels: set[str] = set()
        self._previewed_at: float | None = None
        self._warnings: tuple[str, ...] = ()

    def tell(self, scene: Scene) -> list[str]:
        """The new lines, the oldest first."""
        with self._ledger.read() as session:
            seen: Mark = mark(session)
            happenings = recent(session, MOST, self._mark)
        self._mark = seen
        lines = [line(h.at, h.who, h.text) for h in reversed(happenings)]
        return [
            *lines,
            *self._warned(scene),
            *self._levels(scene),
            *self._previews(scene),
            *self._progress(scene),
        ]

    def _warned(self, scene: Scene) -> list[str]:
        """Each warning once; one that was over and comes back is told again."""
        new = [text for text in scene.warnings if text not in self._warnings]
        self._warnings = scene.warnings
        return [line(scene.at, "warning", text) for text in new]

    def _levels(self, scene: Scene) -> list[str]:
        """The accuracy of each checkpoint, once, when its evaluation appears."""
        new = [look for look in reversed(scene.checkpoints) if look.levels and look.id not in self._told_levels]
        if not self._told_levels:
            new = new[-1:]  # what was there before is history; its newest is enough
        self._told_levels.update(look.id for look in scene.checkpoints if look.levels)
        return [line(scene.at, "accuracy", f"#{look.ordinal}: {words.levels_line(look)} (% by level)") for look in new]

    def _previews(self, scene: Scene) -> list[str]:
        """The newest preview, once: how many were right, and each answer that was not. What came before is history."""
        newest = scene.previews[-1].at if scene.previews else 0.0
        before, self._previewed_at = self._previewed_at, newest
        if before is None or newest <= before:
            return []
        wrong = [preview for preview in words.last_preview(scene.previews) if not preview.correct]
        said = [words.previews_line(scene.previews), *(words.preview_line(preview, PREVIEW_WIDTH) for preview in wrong)]
        return [line(newest, "preview", text) for text in said]

    def _progress(self, scene: Scene) -> list[str]:
        said = words.training_line(scene.training)
        if said == self._training or scene.at - self._training_at < TRAINING_EVERY_S:
            return []
        self._training, self._training_at = said, scene.at
        return [line(scene.at, "training", said)]


def line(at: float, who: str, text: str) -> str:
    """``01:23:45 testing     #3 evaluated: …``"""
    return f"{datetime.fromtimestamp(at):%H:%M:%S} {who:<12} {text}"
