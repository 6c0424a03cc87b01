"""`ratchet serve` and `ratchet route`: the inference server by itself, without the rest of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet.plugins import require_plugins
from ratchet.serving.home import ServerHome
from ratchet.settings import Settings, load

Folder = Annotated[
    Path | None, typer.Option("--home", help="Folder of the server's state and token; serving/ in the home without it.")
]
Host = Annotated[str | None, typer.Option(help="Address to bind (serving.host).")]
Port = Annotated[int | None, typer.Option(help="Port to bind, 0 for a free one (serving.port).")]


def serve(folder: Folder = None, host: Host = None, port: Port = None) -> None:
    """Run the inference server that clients ask and the deployer drives, with the engine of serving.engine.

    It serves again what was live before it ended. `ratchet run` starts one by itself.
    """
    _serve(load(), folder, host, port)


def route(folder: Folder = None, host: Host = None, port: Port = None) -> None:
    """Run the router in front of vLLM: `ratchet serve` with serving.engine = vllm.

    It gives clients the one stable model name, brings checkpoints into vLLM and switches between them. With
    serving.vllm_urls it drives vLLM servers that run already (they need VLLM_SERVER_DEV_MODE=1, and for adapters
    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 with --enable-lora); else it starts serving.vllm_command for each checkpoint.
    """
    settings = load()
    vllm = settings.serving.model_copy(update={"engine": "vllm"})
    _serve(settings.model_copy(update={"serving": vllm}), folder, host, port)


def _serve(settings: Settings, folder: Path | None, host: str | None, port: int | None) -> None:
    from ratchet.serving import server  # FastAPI and more

    require_plugins(settings)
    with ServerHome(folder or settings.serving_home) as home:
        server.serve(settings, home, host or settings.serving.host, port)
