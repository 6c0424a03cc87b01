"""The Hugging Face Trainer with our own order of rows, loss and bookkeeping."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from ratchet.settings.training import TrainerConfig
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from trainer.callbacks import TokenCount
from trainer.collator import IGNORED, MicroBatch
from trainer.hardware import Hardware
from trainer.loader import BatchLoader


class SegmentTrainer(Trainer):
    """Trains on exactly the micro-batches of its loader, once, in their order.

    What the stock loop does on every step for features that a segment has no use for (counting operations, walking
    all modules to set their mode, waiting for the device to test for NaN) is left out.
    """

    def __init__(self, *, loader: BatchLoader, count: TokenCount, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self.loader = loader
        self.count = count
        self._sliceable = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def get_train_dataloader(self) -> BatchLoader:
        return self.loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[MicroBatch], torch.Tensor]:
        """The micro-batches of one step, and how many tokens they train over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        trained = sum(batch.trained_tokens for batch in batches)
        self.count.trained += trained
        self.count.tokens += sum(batch.tokens for batch in batches)
        self.count.forwarded += sum(batch.inputs.numel() for batch in batches)
        total = torch.tensor(max(trained, 1), device=device, dtype=torch.float32)
        if self.loader.world > 1:
            dist.all_reduce(total)
        return batches, total

    def training_step(
        self, model: Any, inputs: MicroBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward of one micro-batch; returns its share of the step's mean loss a token."""
        logits = self._logits(model, inputs)
        targets = inputs.targets.to(self.args.device, non_blocking=True)
        loss_sum = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        divisor = inputs.trained_tokens if num_items_in_batch is None else num_items_in_batch
        loss = loss_sum * (self.loader.world / divisor)
        self.accelerator.backward(loss)
        return loss.detach()

    def floating_point_ops(self, _inputs: MicroBatch) -> int:
        return 0

    def _logits(self, model: Any, batch: MicroBatch) -> torch.Tensor:
        """Logits of the last ``batch.keep`` positions, so that prompts cost no projection to the vocabulary."""
        inputs = batch.inputs.to(self.args.device, non_blocking=True)
        if self._sliceable:
            return model(input_ids=inputs, use_cache=False, logits_to_keep=batch.keep).logits
        return model(input_ids=inputs, use_cache=False).logits[:, -batch.keep :]


def build_trainer(
    config: TrainerConfig,
    hardware: Hardware,
    model: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    loader: BatchLoader,
    count: TokenCount,
    callbacks: list[TrainerCallback],
) -> SegmentTrainer:
    """The Trainer for one segment, its optimizer and learning rate already where they were."""
    hyperparams = config.hyperparams
    arguments = TrainingArguments(
        output_dir=str(config.output.output_dir),
        per_device_train_batch_size=hyperparams.batch_size,
        gradient_accumulation_steps=hyperparams.gradient_accumulation,
        learning_rate=hyperparams.learning_rate,
        num_train_epochs=1,
        max_grad_norm=hyperparams.max_grad_norm,
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        use_cpu=not hardware.on_gpu,
        activation_checkpointing=config.model.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=config.monitoring.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=list(config.environment.report_to) or "none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        seed=config.data.seed % 2**32,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process drives one GPU; several GPUs are several processes
    return SegmentTrainer(
        loader=loader,
        count=count,
        model=model,
        args=arguments,
        callbacks=callbacks,
        optimizers=(optimizer, scheduler),
    )
