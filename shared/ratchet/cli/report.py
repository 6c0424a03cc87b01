"""`ratchet report`: one page about a run, for reading and for keeping."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.output import size
from ratchet.cli.place import opened
from ratchet.errors import PreconditionFailed


def report(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write. Default: reports/report.html in the home folder.")
    ] = None,
) -> None:
    """Write one HTML page of this home: learning curves, deployments with their proofs, leaderboard, calibration, data.

    The file needs nothing else: no server, no network, no script. A running loop is not disturbed.
    """
    try:
        from ratchet.report.page import write
        from ratchet.report.reading import read_facts
    except ModuleNotFoundError as error:
        raise PreconditionFailed(f"the report needs {error.name}: pip install 'ratchet-shared[report]'.") from error
    with opened() as (settings, ledger):
        facts = read_facts(ledger, settings)
        file = out or settings.home.resolve() / "reports" / "report.html"
    write(facts, file)
    typer.echo(f"{file} ({size(file.stat().st_size)}): open it in a browser.")
