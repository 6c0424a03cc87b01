"""The Hugging Face Trainer with Ratchet's order of rows, loss and token counts.

Only public methods and hooks are overridden. Work that the stock loop does on every step for features that a segment
does not use (counting operations, walking all modules, looking for optional packages, waiting for the device to test
for NaN) is left out; benchmarks/training measures the difference.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from ratchet.settings.training import TrainerConfig
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from trainer.batches import BatchLoader, MicroBatch, TokenCount
from trainer.distributed import full_tensor, is_sharded
from trainer.hardware import Hardware


class SegmentTrainer(Trainer):
    """Trains on exactly the micro-batches of its loader, once and in order."""

    optimizer: Any

    def __init__(self, *, loader: BatchLoader, count: TokenCount, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self.loader = loader
        self.count = count
        if self.args.fp16 and self.accelerator.scaler is None:  # on a CPU accelerate disables fp16; torch supports it
            self.accelerator.scaler = torch.amp.GradScaler(self.args.device.type)
            self.accelerator.native_amp = True
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._takes_logits_to_keep = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self.accelerator.clip_grad_norm_ = self._clip
        if is_sharded(self.model):  # prepared here for autocast alone: DDP around it would copy it to each process
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        if self.accelerator.scaler is None:
            self.add_callback(UnwrapOptimizer(self))

    def get_train_dataloader(self) -> BatchLoader:
        return self.loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[MicroBatch], torch.Tensor]:
        """The micro-batches of one step, and the number of trained tokens over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        step = self.loader.step(self.state.global_step)
        self.count.add(step, batches)
        return batches, torch.tensor(max(step.trained_tokens, 1), device=device, dtype=torch.float32)

    def training_step(
        self, model: Any, inputs: MicroBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward pass of one micro-batch; returns its share of the step's mean loss per token."""
        targets = inputs.targets.to(self.args.device, non_blocking=True)
        loss_sum = cross_entropy(self._logits(model, inputs).float(), targets, reduction="sum")
        divisor = inputs.trained_tokens if num_items_in_batch is None else num_items_in_batch
        loss = loss_sum * (self.loader.processes.world_size / divisor)
        (loss if self.accelerator.scaler is None else self.accelerator.scaler.scale(loss)).backward()
        return loss.detach()

    def floating_point_ops(self, _inputs: MicroBatch) -> int:
        return 0

    def _clip(self, _parameters: Any, max_norm: float, norm_type: float = 2) -> torch.Tensor:
        """Replaces accelerate's function, which does not convert a DTensor. The parameters are listed only once."""
        self.accelerator.unscale_gradients()
        return full_tensor(clip_grad_norm_(self._parameters, max_norm, norm_type))

    def _logits(self, model: Any, batch: MicroBatch) -> torch.Tensor:
        """Logits (trained predictions, vocabulary). Positions before all answers are not projected."""
        inputs = batch.inputs.to(self.args.device, non_blocking=True)
        positions = batch.target_positions.to(self.args.device, non_blocking=True)
        arguments = {"input_ids": inputs, "use_cache": False}
        if batch.position_ids is not None:
            arguments["position_ids"] = batch.position_ids.to(self.args.device, non_blocking=True)
            if self._takes_logits_to_keep:
                return model(**arguments, logits_to_keep=positions).logits[0]
        if self._takes_logits_to_keep:
            logits = model(**arguments, logits_to_keep=batch.logits_to_keep).logits
        else:
            logits = model(**arguments).logits[:, -batch.logits_to_keep :]
        return logits.flatten(0, 1).index_select(0, positions)


class UnwrapOptimizer(TrainerCallback):
    """Makes the Trainer call the optimizer directly: without a gradient scaler, accelerate's wrapper does nothing but
    look for optional packages at every step."""

    def __init__(self, trainer: SegmentTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        self._trainer.optimizer = self._trainer.optimizer.optimizer


class SegmentArguments(TrainingArguments):
    """Arguments for one GPU per process and a model that is already on its device."""

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)

    @property
    def place_model_on_device(self) -> bool:
        return False


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
    """The Trainer for one segment, with an optimizer and a scheduler that are already restored."""
    return SegmentTrainer(
        loader=loader,
        count=count,
        model=model,
        args=_arguments(config, hardware),
        callbacks=callbacks,
        optimizers=(optimizer, scheduler),
    )


def _arguments(config: TrainerConfig, hardware: Hardware) -> TrainingArguments:
    hyperparams = config.hyperparams
    return SegmentArguments(
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
        report_to="none",  # trackers are added as GuardedTracker, see trainer.callbacks
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        seed=config.data.seed % 2**32,
    )
