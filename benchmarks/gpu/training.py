"""Training speed and memory of one contender on one model: the engine, its variants, the Trainer or the SFTTrainer.

The contenders are those of benchmarks/training, with the same rows in the same order and the same model, which the
engine's own loader has read; so they differ in the loop and the batches alone.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ratchet.inference.tiny import build_tiny_tokenizer
from ratchet.profiles.profile import get_profile
from ratchet.settings.training import TrainerConfig
from ratchet.training_memory import estimate_memory, model_facts
from torch.nn.functional import linear_cross_entropy
from trainer.batches import MicroBatch, collate, pack
from trainer.dataset import TrainingRows, examples_of, prepare_rows
from trainer.hardware import pick_hardware
from trainer.model import Trainable
from trainer.run import Run, plan_segment
from trainer.varlen_attention import use_varlen_attention

from benchmarks.gpu.card import device, forget_peak, peak_memory
from benchmarks.gpu.shapes import SHAPES, random_rows, training_flops, write_random_model
from benchmarks.training.contenders import Case, Clock, engine, sft_trainer, stock_trainer
from tests.support.examples import write_examples

CONTENDERS = {"engine": engine, "Trainer": stock_trainer, "SFTTrainer": sft_trainer}
RATE = 1e-5
"""Learning rate: random weights need not learn anything here, only not diverge."""
WARMUP_STEPS = 3
"""Steps without which the speed is told: they allocate memory, choose kernels and compile them."""


@dataclass(frozen=True)
class TrainingSpec:
    """One contender on one model. ``attention`` and ``loss`` are variants of the engine.

    ``attention``: ``auto``, ``sdpa``, ``flash_attention_2``, or ``grouped``, the engine's variable-length attention of
    CPUs. ``loss``: ``logits`` as the engine computes it, or fused with the head's product by ``torch`` or ``liger``.
    """

    model: str
    contender: str = "engine"
    lora_rank: int = 0
    load_in_4bit: bool = False
    gradient_checkpointing: bool = False
    attention: str = "auto"
    loss: str = "logits"
    batch_size: int = 4
    max_length: int = 512
    steps: int = 24

    def case(self, folder: Path, seen: dict[str, str]) -> Case:
        """The model and its rows, written into the folder, as a case of the contenders.

        ``seen`` gets the ``attention`` that the engine trained with.
        """
        on_card = device() != "cpu"
        grouped = self.attention == "grouped"

        def adapt_run(run: Run) -> None:
            seen["attention"] = run.trainable.attention
            _fuse_loss(run, self.loss)

        def adapt_model(trainable: Trainable) -> None:
            if grouped and not use_varlen_attention(trainable.model, self.max_length):
                raise RuntimeError("the model does not keep packed rows apart with this attention")

        return Case(
            model=write_random_model(folder / "model", SHAPES[self.model], device()),
            data=write_examples(folder / "rows.jsonl", random_rows(self.batch_size * self.steps, self.max_length)),
            batch_size=self.batch_size,
            lora_rank=self.lora_rank,
            precision="bf16" if on_card else "fp32",
            device=device(),
            load_in_4bit=self.load_in_4bit,
            gradient_checkpointing=self.gradient_checkpointing,
            attention="sdpa" if grouped else self.attention,
            max_length=self.max_length,
            learning_rate=RATE,
            clock=Clock(on_card, min(WARMUP_STEPS, self.steps - 1)),
            adapt_model=adapt_model,
            adapt_run=adapt_run,
        )


def measure_training(**fields: Any) -> dict[str, Any]:
    """Speed, memory, times and the estimate of one contender. ``fields`` are those of a TrainingSpec.

    ``flops_per_s`` are the operations that its tokens need (see ``training_flops``), a second.
    """
    spec = TrainingSpec(**fields)
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        case = spec.case(Path(scratch), seen)
        forget_peak()
        begun = time.perf_counter()
        tokens, seconds, first_step_s = CONTENDERS[spec.contender](case)
        load_s = case.clock.begun_at - begun if case.on_card else None
        memory = peak_memory()
        rows = _rows_of(case)
        flops = training_flops(
            SHAPES[spec.model], rows, adapters_only=spec.lora_rank > 0, lora_rank=spec.lora_rank
        ) / sum(len(row.ids) - 1 for row in rows.rows)
        return {
            "tokens_per_s": tokens / seconds,
            "flops_per_s": flops * tokens / seconds,
            "first_step_s": first_step_s,
            "load_s": load_s,
            "memory": memory,
            **seen,
            "padding_share": padding_share(case, rows) if spec.contender == "engine" else None,
            **(estimates(case, rows) if spec.contender == "engine" else {}),
        }


def _rows_of(case: Case) -> TrainingRows:
    profile, tokenizer = get_profile("plain"), build_tiny_tokenizer()
    return prepare_rows(examples_of(case.data), profile, tokenizer, system_prompt="", max_length=case.max_length)


def _micro_batches(case: Case, rows: TrainingRows) -> tuple[TrainerConfig, list[MicroBatch]]:
    """What goes through the model in each step of the engine."""
    config = case.config(case.data.parent / "plan", case.attention)
    attention = pick_hardware(config).attention
    is_packed = attention == "flash_attention_2" or (not case.on_card and case.attention == "auto")
    lines = plan_segment(config, rows, None).lines.tolist()
    steps = [lines[first : first + case.batch_size] for first in range(0, len(lines), case.batch_size)]
    members = [[rows.by_line[line] for line in step] for step in steps]
    return config, [pack(step) if is_packed else collate(step, 0) for step in members]


def padding_share(case: Case, rows: TrainingRows) -> float:
    """Share of the tokens through the model that are padding."""
    _, batches = _micro_batches(case, rows)
    return 1.0 - sum(batch.tokens for batch in batches) / sum(batch.inputs.numel() for batch in batches)


def estimates(case: Case, rows: TrainingRows) -> dict[str, float]:
    """Bytes that ``ratchet.training_memory`` expects: as `init` asks it, with rows of the maximum length, and for the
    largest micro-batch that was trained on, with its own share of trained tokens."""
    config, batches = _micro_batches(case, rows)
    facts, hyperparams = model_facts(case.model), config.hyperparams
    largest = max(batches, key=lambda batch: batch.inputs.numel())
    length = max(8, -(-largest.inputs.numel() // case.batch_size))
    as_trained = hyperparams.model_copy(update={"max_length": length})
    share = largest.trained_tokens / largest.inputs.numel()
    whole = estimate_memory(facts, config.model, hyperparams, half=case.is_half)
    exact = estimate_memory(facts, config.model, as_trained, half=case.is_half, answer_share=share)
    return {"estimate": float(whole.total), "estimate_as_trained": float(exact.total)}


def _fuse_loss(run: Run, loss: str) -> None:
    """Have the engine's Trainer compute head and cross-entropy in one operation that holds a part of the logits."""
    if loss == "logits":
        return
    trainer: Any = run.trainer
    fused = _fused_sum(loss)

    def training_step(
        model: Any, inputs: MicroBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        place = trainer.args.device
        arguments: dict[str, Any] = {"input_ids": inputs.inputs.to(place), "use_cache": False}
        if inputs.position_ids is not None:
            arguments["position_ids"] = inputs.position_ids.to(place)
        whole = trainer.accelerator.unwrap_model(model)
        dtype = torch.bfloat16 if trainer.args.bf16 else torch.float32
        with torch.autocast(place.type, torch.bfloat16, enabled=trainer.args.bf16):
            hidden = whole.model(**arguments).last_hidden_state
        kept = hidden[:, -inputs.logits_to_keep :].flatten(0, 1).index_select(0, inputs.target_positions.to(place))
        loss_sum = fused(kept.to(dtype), whole.lm_head.weight.to(dtype), inputs.targets.to(place))
        divisor = inputs.trained_tokens if num_items_in_batch is None else num_items_in_batch
        share: torch.Tensor = loss_sum / divisor
        share.backward()  # type: ignore[no-untyped-call]
        return share.detach()

    trainer.training_step = training_step


def _fused_sum(loss: str) -> Any:
    """From hidden states (tokens, width), head (vocabulary, width) and targets (tokens,) to the sum of the losses."""
    if loss == "torch":
        options = torch.nn.LinearCrossEntropyOptions()
        return lambda hidden, head, targets: linear_cross_entropy(
            hidden, head, targets, reduction="sum", options=options
        )
    criterion = importlib.import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return lambda hidden, head, targets: criterion(head, hidden, targets)
