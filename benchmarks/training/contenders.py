"""Five ways to train on the same rows in the same order, each under one clock, on a CPU or an NVIDIA card."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ratchet.profiles.profile import get_profile
from ratchet.settings.training import TrainerConfig
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from trainer.batches import MicroBatch, pack
from trainer.config import parse_config
from trainer.dataset import TrainingRows, examples_of, prepare_rows
from trainer.hardware import pick_hardware
from trainer.model import Trainable, load_on_device
from trainer.run import Run, SegmentPlan, create_run, plan_segment
from transformers import Trainer, TrainerCallback, TrainingArguments

Batch = dict[str, torch.Tensor]
RATE = 1e-3
"""Learning rate of all contenders: low enough for a pretrained model not to diverge in the few steps of a round."""
HAS_TRL = importlib.util.find_spec("trl") is not None


@dataclass
class Clock(TrainerCallback):
    """Seconds from the start of training to its end, and to the end of its first step.

    On a CPU they are CPU seconds; on a card they are of the wall clock, once the card has done its work. The first
    ``warmup_steps`` are left out of the speed.
    """

    on_card: bool = False
    warmup_steps: int = 0
    begun_at: float = 0.0
    measured_from: float = 0.0
    first_step_s: float | None = None
    steps: int = 0

    def begin(self) -> Clock:
        """Start it, when all is loaded."""
        self.begun_at = self.measured_from = self._now()
        return self

    def step(self) -> None:
        self.steps += 1
        if self.first_step_s is None:
            self.first_step_s = self._now() - self.begun_at
        if self.steps == self.warmup_steps:
            self.measured_from = self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.step()

    def read(self, rows: TrainingRows, lines: list[list[int]]) -> tuple[int, float, float]:
        """(tokens after the warm-up, seconds for them, seconds to the end of the first step).

        ``lines`` are those of the rows of each step. Tokens are inputs without padding.
        """
        tokens = sum(len(rows.by_line[line].ids) - 1 for step in lines[self.warmup_steps :] for line in step)
        return tokens, self._now() - self.measured_from, self.first_step_s or 0.0

    def _now(self) -> float:
        if not self.on_card:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Case:
    """What all contenders train: a model, its rows, the rows of a step, and all weights or adapters in a precision.

    ``adapt_model`` is called with the engine's model once it is loaded, and ``adapt_run`` with its run before the first
    step, for variants of the engine.
    """

    model: Path
    data: Path
    batch_size: int
    lora_rank: int = 0
    precision: str = "fp32"
    device: str = "cpu"
    load_in_4bit: bool = False
    gradient_checkpointing: bool = False
    attention: str = "auto"
    max_length: int = 1024
    learning_rate: float = RATE
    clock: Clock = field(default_factory=Clock)
    adapt_model: Callable[[Trainable], None] = lambda _trainable: None
    adapt_run: Callable[[Run], None] = lambda _run: None

    @property
    def is_half(self) -> bool:
        return self.precision == "bf16"

    @property
    def on_card(self) -> bool:
        return self.device != "cpu"

    def config(self, scratch: Path, attention: str) -> TrainerConfig:
        """The engine's configuration, with ``scratch`` as its folder."""
        return parse_config(
            {
                "model": {
                    "path": str(self.model),
                    "lora_rank": self.lora_rank,
                    "load_in_4bit": self.load_in_4bit,
                    "gradient_checkpointing": self.gradient_checkpointing,
                    "attention": attention,
                },
                "hyperparams": {
                    "batch_size": self.batch_size,
                    "learning_rate": self.learning_rate,
                    "fp_precision": self.precision,
                    "max_length": self.max_length,
                },
                "monitoring": {"preview_backend": "none"},
                "data": {"dataset_path": self.data},
                "output": {"output_dir": scratch},
                "environment": {"device": self.device},
            }
        )


def engine(case: Case) -> tuple[int, float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        config, trainable, rows = _prepared(case, Path(scratch), case.attention)
        case.adapt_model(trainable)
        run = create_run(config, pick_hardware(config), trainable, rows, None, lambda _: None, lambda: False)
        case.adapt_run(run)
        run.trainer.add_callback(case.clock.begin())
        run.train()
        return case.clock.read(rows, _steps(run.plan, case.batch_size))


def bare_loop(case: Case) -> tuple[int, float, float]:
    """What one would write by hand: whole rows with mask and labels, the model's own loss."""

    def loss_of(model: Any, batch: Batch) -> torch.Tensor:
        return model(**batch).loss

    return _loop(case, _padded, loss_of)


def lean_loop(case: Case) -> tuple[int, float, float]:
    """The hand-written loop with the engine's batches, end to end: what the Trainer around them costs."""

    def loss_of(model: Any, batch: MicroBatch) -> torch.Tensor:
        kept = batch.target_positions
        logits = model(
            input_ids=batch.inputs, position_ids=batch.position_ids, use_cache=False, logits_to_keep=kept
        ).logits
        return cross_entropy(logits[0].float(), batch.targets)

    def in_line(rows: TrainingRows, lines: list[int]) -> MicroBatch:
        return pack([rows.by_line[line] for line in lines])

    return _loop(case, in_line, loss_of, attention="auto")


def stock_trainer(case: Case) -> tuple[int, float, float]:
    """The Trainer as it comes, fed the same batches in the same order."""
    with tempfile.TemporaryDirectory() as scratch:
        config, trainable, rows = _prepared(case, Path(scratch))
        steps = _steps(plan_segment(config, rows, None), case.batch_size)
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=1,
            num_train_epochs=1,
            learning_rate=case.learning_rate,
            use_cpu=not case.on_card,
            bf16=case.is_half,
            activation_checkpointing=case.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1_000_000,
            remove_unused_columns=False,
        )
        batches = [_padded(rows, lines) for lines in steps]
        trainer = _InOrder(trainable.model, arguments, train_dataset=batches, data_collator=lambda items: items[0])
        trainer.add_callback(case.clock.begin())
        trainer.train()
        return case.clock.read(rows, steps)


def sft_trainer(case: Case) -> tuple[int, float, float]:
    """TRL's SFTTrainer on tokenized rows with labels; its gradient checkpointing, on by default, as in the case."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as scratch:
        config, trainable, rows = _prepared(case, Path(scratch))
        steps = _steps(plan_segment(config, rows, None), case.batch_size)
        members = [rows.by_line[line] for step in steps for line in step]
        dataset = Dataset.from_list(
            [
                {
                    "input_ids": row.ids.tolist(),
                    "labels": [int(i) if mark else -100 for i, mark in zip(row.ids, row.trained, strict=True)],
                }
                for row in members
            ]
        )
        arguments = SFTConfig(
            output_dir=scratch,
            per_device_train_batch_size=case.batch_size,
            num_train_epochs=1,
            learning_rate=case.learning_rate,
            use_cpu=not case.on_card,
            bf16=case.is_half,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1_000_000,
            gradient_checkpointing=case.gradient_checkpointing,
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = InOrder(trainable.model, arguments, train_dataset=dataset, processing_class=trainable.tokenizer)
        trainer.add_callback(case.clock.begin())
        trainer.train()
        return case.clock.read(rows, steps)


class _InOrder(Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def _loop(
    case: Case,
    collate_rows: Callable[[TrainingRows, list[int]], Any],
    loss_of: Callable[[Any, Any], torch.Tensor],
    attention: str = "sdpa",
) -> tuple[int, float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        config, trainable, rows = _prepared(case, Path(scratch), attention)
        steps = _steps(plan_segment(config, rows, None), case.batch_size)
        model = trainable.model
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = AdamW(parameters, lr=case.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        clock = case.clock.begin()
        for lines in steps:
            with torch.autocast("cpu", torch.bfloat16, enabled=case.is_half):
                loss = loss_of(model, collate_rows(rows, lines))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            clock.step()
        return clock.read(rows, steps)


def _prepared(case: Case, scratch: Path, attention: str = "sdpa") -> tuple[TrainerConfig, Trainable, TrainingRows]:
    config = case.config(scratch, attention)
    profile = get_profile("plain")
    trainable = load_on_device(config, pick_hardware(config), profile)
    rows = prepare_rows(
        examples_of(case.data), profile, trainable.tokenizer, system_prompt="", max_length=case.max_length
    )
    return config, trainable, rows


def _steps(plan: SegmentPlan, batch_size: int) -> list[list[int]]:
    lines = plan.lines.tolist()
    return [lines[start : start + batch_size] for start in range(0, len(lines), batch_size)]


def _padded(rows: TrainingRows, lines: list[int]) -> Batch:
    members = [rows.by_line[line] for line in lines]
    shape = (len(members), max(len(row.ids) for row in members))
    batch = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, -100),
    }
    for index, row in enumerate(members):
        ids, trained = torch.from_numpy(row.ids).long(), torch.from_numpy(row.trained)
        batch["input_ids"][index, : len(ids)] = ids
        batch["attention_mask"][index, : len(ids)] = 1
        batch["labels"][index, : len(ids)] = torch.where(trained, ids, -100)
    return batch
