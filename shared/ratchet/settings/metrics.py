"""Whether and where a worker shows its Prometheus metrics."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class MetricsSettings(Section):
    """Metrics are pages that Prometheus fetches; where they are is in the ledger's register of workers."""

    port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="First port to try for a worker's /metrics; the next worker of this machine takes the next one. "
        "0: no metrics.",
    )
    host: str = Field("127.0.0.1", description="Address that the page is bound to.")
    address: str | None = Field(
        None,
        description="What Prometheus is to call this worker, host or host:port, where that is not the bound address.",
    )
    exporters: dict[str, str] = Field(
        default_factory=dict,
        description='Other programs of this machine with a /metrics page, as {node = "10.0.0.4:9100"}: name and '
        "host:port. Its workers tell Prometheus of them, each as a job of that name.",
    )
