"""`ratchet serve`: the inference server by itself, without the rest of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet.plugins import require_plugins
from ratchet.serving.home import ServerHome
from ratchet.settings import load


def serve(
    folder: Annotated[
        Path | None, typer.Option("--home", help="Folder of its state and token. Default: serving/ in the home.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind (serving.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind, 0 for a free one (serving.port).")] = None,
) -> None:
    """Run the inference server, with the engine of serving.engine. `ratchet run` starts one by itself.

    Clients ask it and the deployer drives it. After a restart it serves the model that was live before.

    With serving.engine = vllm it is a router: it starts serving.vllm_command for each checkpoint, and gives clients one
    stable model name for the live one.
    """
    from ratchet.serving import server  # FastAPI and more

    settings = load()
    require_plugins(settings)
    with ServerHome(folder or settings.serving_home) as home:
        server.serve(settings, home, host or settings.serving.host, port)
