"""The model that answers for testing, mining and correction: in this process, or in a vLLM that is started for it.

``inference.engine`` says which. It does not know what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.errors import ServingError, SettingsError, TransientError
from ratchet.inference.generator import BatchGenerator
from ratchet.inference.prompt_format import PromptFormat
from ratchet.settings.serving import InferenceSettings

VLLM_LOG = "vllm.log"
MOST_CONCURRENT = 64
"""Requests in flight at vLLM: it decodes as many together as it has room for, and each takes a thread here."""


@contextmanager
def opened_model(
    folder: Path,
    settings: InferenceSettings,
    weights: str | None,
    prompt_format: PromptFormat,
    scratch: Path,
    beat: Callable[[], None],
) -> Iterator[BatchGenerator]:
    """A checkpoint's folder, loaded for the block; ``beat`` is called while it starts and answers.

    ``weights`` is the digest that it must have, None for any. ``scratch`` is an existing folder for vLLM's log and for
    merged weights. Raises BrokenCheckpoint for a damaged folder or other weights than these, SettingsError for a
    profile that vLLM cannot run, and TransientError if it does not start: neither is the checkpoint's fault.
    """
    if settings.engine == "embedded":
        from ratchet.inference.local_generator import LocalGenerator

        local = LocalGenerator.load(folder, settings, weights, prompt_format)
        local.report_steps_to(beat)
        yield local
        return
    with _in_vllm(folder, settings, weights, prompt_format, scratch, beat) as served:
        yield served


@contextmanager
def _in_vllm(
    folder: Path,
    settings: InferenceSettings,
    weights: str | None,
    prompt_format: PromptFormat,
    scratch: Path,
    beat: Callable[[], None],
) -> Iterator[BatchGenerator]:
    from ratchet.inference.model_folder import weights_digest
    from ratchet.inference.model_loading import pick_hardware
    from ratchet.inference.vllm_generator import NotForVllm, VllmGenerator
    from ratchet.inference.vllm_replica import VllmReplicas

    hardware, concurrency = pick_hardware(settings), min(settings.batch_size, MOST_CONCURRENT)
    replicas = VllmReplicas(
        settings.vllm_command, hardware.dtype, scratch / VLLM_LOG, settings.timeout_s, concurrency, on_wait=beat
    )
    try:
        try:
            expected = weights or weights_digest(folder)
            served = VllmGenerator.load(folder, expected, prompt_format, replicas, hardware, scratch, concurrency)
        except NotForVllm as error:
            raise SettingsError(str(error)) from error
        except ServingError as error:
            raise TransientError(f"vLLM does not start, so nothing is judged: {error}") from error
        try:
            served.report_steps_to(beat)
            yield served
        finally:
            served.close()
    finally:
        replicas.close()
