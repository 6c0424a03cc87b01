"""`ratchet report`: the pages of the Control Room as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.output import say
from ratchet.disk import home_errors
from ratchet.home import opened
from ratchet.wording import size


def report(
    to: Annotated[Path, typer.Option("--to", help="File to write; an existing one is replaced.")] = Path("report.html"),
) -> None:
    """Write the Control Room's pages as one HTML file, to keep or to send.

    It shows the ledger as it is now, with curves and proofs. It needs no server and no network.
    """
    from ratchet.web.report import write_report

    with opened() as (settings, ledger):
        with home_errors(to.resolve().parent):
            written = write_report(settings, ledger, to)
        say(f"{to}: {size(written)}.")
