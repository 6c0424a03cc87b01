"""Where the view goes: redrawn in place on a terminal, told in lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from ratchet.cli.view.lines import Teller
from ratchet.cli.view.panels import Frame, draw
from ratchet.cli.view.scene import Scene


class Screen:
    """A console for the length of a block. On a terminal the last picture stays when the block ends."""

    def __init__(self, console: Console):
        self.console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, scene: Scene, heading: str, hint: str, teller: Teller) -> None:
        """Show a scene: the whole of it, or what is new in it."""
        if self._live is not None:
            frame = Frame(self.console.width, self.console.height, heading, hint)
            self._live.update(draw(scene, frame), refresh=True)
            return
        for line in teller.tell(scene):
            self.console.print(line, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line above the view."""
        self.console.print(text, markup=False, soft_wrap=True)
