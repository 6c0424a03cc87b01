"""Five ways to train on the same rows in the same order, each under one clock."""

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
from trainer.model import Trainable, load_model
from trainer.run import SegmentPlan, create_run, plan_segment
from transformers import Trainer, TrainerCallback, TrainingArguments

Batch = dict[str, torch.Tensor]
RATE = 1e-3
"""Learning rate of all contenders: low enough for a pretrained model not to diverge in the few steps of a round."""
HAS_TRL = importlib.util.find_spec("trl") is not None


@dataclass(frozen=True)
class Case:
    """What all contenders train: a model, its rows, the rows of a step, and all weights or adapters in a precision."""

    model: Path
    data: Path
    batch_size: int
    lora_rank: int = 0
    precision: str = "fp32"

    @property
    def is_half(self) -> bool:
        return self.precision == "bf16"


@dataclass
class Clock(TrainerCallback):
    """CPU seconds from the start of training to its end, and to the end of its first step."""

    begun_at: float = field(default_factory=time.process_time)
    first_step_s: float | None = None

    def step(self) -> None:
        if self.first_step_s is None:
            self.first_step_s = time.process_time() - self.begun_at

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.step()

    def read(self, tokens: int) -> tuple[int, float, float]:
        """(tokens, seconds, seconds to the end of the first step)."""
        return tokens, time.process_time() - self.begun_at, self.first_step_s or 0.0


def engine(case: Case) -> tuple[int, float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        config, trainable, rows = _prepared(case, Path(scratch), "auto")
        run = create_run(config, pick_hardware(config), trainable, rows, None, lambda _: None, lambda: False)
        clock = Clock()
        run.trainer.add_callback(clock)
        run.train()
        return clock.read(run.tokens.tokens)


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
        plan = plan_segment(config, rows, None)
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=1,
            num_train_epochs=1,
            learning_rate=RATE,
            use_cpu=True,
            bf16=case.is_half,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1_000_000,
            remove_unused_columns=False,
        )
        batches = [_padded(rows, lines) for lines in _steps(plan, case.batch_size)]
        trainer = _InOrder(trainable.model, arguments, train_dataset=batches, data_collator=lambda items: items[0])
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
        return clock.read(_tokens(rows))


def sft_trainer(case: Case) -> tuple[int, float, float]:
    """TRL's SFTTrainer on tokenized rows with labels, its gradient checkpointing (on by default) off."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as scratch:
        config, trainable, rows = _prepared(case, Path(scratch))
        members = [rows.by_line[line] for line in plan_segment(config, rows, None).lines.tolist()]
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
            learning_rate=RATE,
            use_cpu=True,
            bf16=case.is_half,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1_000_000,
            gradient_checkpointing=False,
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = InOrder(trainable.model, arguments, train_dataset=dataset, processing_class=trainable.tokenizer)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
        return clock.read(_tokens(rows))


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
        plan = plan_segment(config, rows, None)
        model = trainable.model
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = AdamW(parameters, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        clock = Clock()
        for lines in _steps(plan, case.batch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=case.is_half):
                loss = loss_of(model, collate_rows(rows, lines))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            clock.step()
        return clock.read(_tokens(rows))


def _prepared(case: Case, scratch: Path, attention: str = "sdpa") -> tuple[TrainerConfig, Trainable, TrainingRows]:
    config = parse_config(
        {
            "model": {"path": str(case.model), "lora_rank": case.lora_rank, "attention": attention},
            "hyperparams": {
                "batch_size": case.batch_size,
                "learning_rate": RATE,
                "fp_precision": case.precision,
            },
            "monitoring": {"preview_backend": "none"},
            "data": {"dataset_path": case.data},
            "output": {"output_dir": scratch},
            "environment": {"device": "cpu"},
        }
    )
    profile = get_profile("plain")
    trainable = load_model(config, pick_hardware(config), profile)
    rows = prepare_rows(examples_of(case.data), profile, trainable.tokenizer, system_prompt="", max_length=1024)
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


def _tokens(rows: TrainingRows) -> int:
    return int((rows.lengths - 1).sum())
