"""Sections of inference and serving: how models generate answers, and the inference server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from ratchet.settings.section import Section

VLLM_COMMAND = (
    "vllm serve {path} --served-model-name {name} --host 127.0.0.1 --port {port} --dtype {dtype} "
    "--generation-config vllm --gpu-memory-utilization 0.4"
)


def _names_what_it_starts(command: str) -> str:
    try:
        command.format(path="", name="", port=0, dtype="")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"unknown placeholder {error}: known are {{path}}, {{name}}, {{port}}, {{dtype}}") from error
    missing = [name for name in ("{path}", "{name}", "{port}") if name not in command]
    if missing:
        raise ValueError(f"it must contain {' and '.join(missing)}")
    return command


VllmCommand = Annotated[str, AfterValidator(_names_what_it_starts)]


class InferenceSettings(Section):
    """How a local model is loaded and batched, and how a remote one is called."""

    engine: Literal["embedded", "vllm"] = Field(
        "embedded",
        description="What answers in testing, mining and correction: their own process, or a vLLM that they start for "
        "each checkpoint, which takes about a minute and pays where suites take many.",
    )
    vllm_command: VllmCommand = Field(
        VLLM_COMMAND, description="Starts vLLM for one checkpoint; {path}, {name}, {port} and {dtype} are filled in."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Where a local model runs: auto (a GPU where there is one), cpu, mps, cuda or cuda:N.",
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="Precision of the weights in inference; auto is bf16 on a GPU and fp32 on a CPU."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="Attention kernel; auto is flash attention where installed, else sdpa. A model without support for "
        "it uses the next simpler one, finally eager.",
    )
    batch_size: int = Field(256, ge=1, le=8192, description="Most prompts answered in one batch.")
    timeout_s: float = Field(120.0, gt=0, description="Timeout of one request to a remote model server.")
    concurrency: int = Field(16, ge=1, le=512, description="Requests in flight at one remote model server.")
    api_key: SecretStr | None = Field(None, description="Bearer token of a remote model server.")


class ServingSettings(Section):
    """Where the server listens, what it accepts, and what makes the deployer roll back."""

    engine: Literal["embedded", "vllm"] = Field(
        "embedded", description="What runs the models: this process, or vLLM processes that it starts."
    )
    vllm_command: VllmCommand = Field(
        VLLM_COMMAND,
        description="Starts vLLM for one checkpoint; {path}, {name}, {port} and {dtype} are filled in.",
    )
    host: str = Field("127.0.0.1", description="Address that the server binds.")
    port: int = Field(8100, ge=0, le=65_535, description="Port of the server; 0 takes a free one.")
    url: str | None = Field(None, description="Base URL that the deployer uses, if it is not http://host:port.")
    alias: str = Field("ratchet", min_length=1, description="The one stable model name that clients ask for.")
    admin_token_file: Path | None = Field(
        None,
        description="File with the bearer token of /admin; without it the server creates one in its home folder.",
    )
    allowed_origins: tuple[str, ...] = Field(
        (),
        description="Web pages that may call the server, such as https://chat.example.org, or * for all; those of "
        "this machine's loopback addresses always may.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Names under which clients reach the server, such as models.example.org, or * for all; addresses, "
        "names without a dot, serving.host and the host of serving.url always work.",
    )
    max_loaded: int = Field(3, ge=2, le=16, description="Most checkpoints held in memory at the same time.")
    max_batch: int = Field(64, ge=1, le=4096, description="Most requests answered in one batch.")
    max_queue: int = Field(512, ge=1, description="Requests that may wait; one more gets a 503 with Retry-After.")
    max_new_tokens: int = Field(2048, ge=1, description="Longest answer in tokens; a request for more is cut to it.")
    request_timeout_s: float = Field(120.0, gt=0, description="A request that takes longer gets a 503.")
    drain_s: float = Field(10.0, gt=0, description="Longest time that a stopping server waits for running requests.")
    logprob_epsilon: float | None = Field(
        None, gt=0, description="Largest canary difference in log-probability; depends on dtype if unset."
    )
    watch_s: float = Field(15.0, ge=0, description="How long a new deployment is watched.")
    max_error_rate: float = Field(
        0.02,
        ge=0,
        le=1,
        description="An error rate above this and the last champion's, from three errors on, rolls back.",
    )
    max_latency_ratio: float = Field(
        3.0, gt=1, description="A 95th-percentile latency above this multiple of the last champion's rolls back."
    )
    drill_days: float = Field(
        30.0, gt=0, description="Days after which an alert asks for another `ratchet drill rollback`."
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name != "*" and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise ValueError(f"{name!r} is no name of a host: it is like models.example.org, without a port")
        return names

    @property
    def base_url(self) -> str:
        return self.url or f"http://{self.host}:{self.port}"
