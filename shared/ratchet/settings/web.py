"""Section of the Control Room: where the page is served, and who may see and do what."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ratchet.settings.section import Section


class WebSettings(Section):
    """Where the page listens, who may use it, and the other pages that it links to."""

    host: str = Field("127.0.0.1", description="Address that the page is bound to; any but loopback needs a password.")
    port: int = Field(
        8000,
        ge=0,
        le=65_535,
        description="Port of the page; 0 takes a free one, and so does `ratchet run` where it is taken.",
    )
    password_file: Path | None = Field(None, description="File with the password of the page; unset: no login.")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Names under which browsers reach the page, such as hub.example.org; loopback names and the "
        "address that is bound always work.",
    )
    read_only: bool = Field(False, description="Show everything and allow no action.")
    links: dict[str, str] = Field(
        default_factory=dict, description='Other pages to link to, as {Grafana = "http://hub:3000"}.'
    )
    prometheus_url: str | None = Field(
        None, description="Base URL of Prometheus, whose firing alerts the page shows, such as http://hub:9090."
    )
