"""`ratchet web`: serve the Control Room by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.cli.output import MOST_PORT, say
from ratchet.ports import listen
from ratchet.settings import load


def web(
    host: Annotated[str | None, typer.Option(help="Address to bind (web.host).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=MOST_PORT, help="Port to bind, 0 for a free one (web.port).")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Show everything and allow no action.")] = False,
) -> None:
    """Serve the Control Room: the page that shows the loop, explains decisions and takes an operator's actions.

    `ratchet run` serves it too. An address that others reach needs a password, in the file of web.password_file.
    """
    from ratchet.web import server  # FastAPI and more
    from ratchet.web.address import page_address, require_password

    settings = load()
    changes = {"host": host, "port": port, "read_only": read_only or None}
    told = {name: value for name, value in changes.items() if value is not None}
    settings = settings.model_copy(update={"web": settings.web.model_copy(update=told)})
    require_password(settings.web.host, has_password=settings.web.password_file is not None)
    listener = listen(settings.web.host, settings.web.port, "web.port")
    say(f"the Control Room is at {page_address(settings.web.host, listener.getsockname()[1])}")
    server.serve(settings, listener)
