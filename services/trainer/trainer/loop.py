"""The Hugging Face Trainer with our own order of rows, loss and bookkeeping."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from ratchet.settings.training import TrainerConfig
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from trainer.collator import MicroBatch
from trainer.hardware import Hardware
from trainer.loader import BatchLoader, TokenCount
from trainer.sharding import is_sharded, whole


class SegmentTrainer(Trainer):
    """Trains on exactly the micro-batches of its loader, once, in their order.

    What the stock loop does on every step for features that a segment has no use for (counting operations, walking
    all modules, looking for optional packages, waiting for the device to test for NaN) is left out.
    """

    optimizer: Any

    def __init__(self, *, loader: BatchLoader, count: TokenCount, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self.loader = loader
        self.count = count
        if self.args.fp16 and self.accelerator.scaler is None:  # accelerate leaves fp16 off on a CPU, torch has it
            self.accelerator.scaler = torch.amp.GradScaler(self.args.device.type)
            self.accelerator.native_amp = True
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._sliceable = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def get_train_dataloader(self) -> BatchLoader:
        return self.loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[MicroBatch], torch.Tensor]:
        """The micro-batches of one step, and how many tokens they train over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        step = self.loader.step(self.state.global_step)
        self.count.add(step, batches)
        return batches, torch.tensor(max(step.trained_tokens, 1), device=device, dtype=torch.float32)

    def training_step(
        self, model: Any, inputs: MicroBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward of one micro-batch; returns its share of the step's mean loss a token."""
        targets = inputs.targets.to(self.args.device, non_blocking=True)
        loss_sum = cross_entropy(self._logits(model, inputs).float(), targets, reduction="sum")
        divisor = inputs.trained_tokens if num_items_in_batch is None else num_items_in_batch
        loss = loss_sum * (self.loader.processes.world / divisor)
        (loss if self.accelerator.scaler is None else self.accelerator.scaler.scale(loss)).backward()
        return loss.detach()

    def floating_point_ops(self, _inputs: MicroBatch) -> int:
        return 0

    def _prepare_for_training(self, *arguments: Any) -> tuple[Any, Any]:
        """Step the optimizer itself: without a scaler its wrapper only looks, every time, for absent packages.

        A model that its processes share gets autocast alone: wrapped once more, it would be copied to each.
        """
        if is_sharded(self.model):
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        prepared = super()._prepare_for_training(*arguments)
        if self.accelerator.scaler is None:
            self.optimizer = self.optimizer.optimizer
        return prepared

    def _clip_grad_norm(self, _model: Any) -> torch.Tensor:
        self.accelerator.unscale_gradients()
        return whole(clip_grad_norm_(self._parameters, self.args.max_grad_norm))

    def _move_model_to_device(self, _model: Any, _device: torch.device) -> None:
        """It is where it belongs."""

    def _logits(self, model: Any, batch: MicroBatch) -> torch.Tensor:
        """(trained predictions, vocabulary): the prompts before all answers cost no projection to the vocabulary."""
        inputs = batch.inputs.to(self.args.device, non_blocking=True)
        positions = batch.positions.to(self.args.device, non_blocking=True)
        arguments = {"input_ids": inputs, "use_cache": False}
        if batch.places is not None:
            arguments["position_ids"] = batch.places.to(self.args.device, non_blocking=True)
            if self._sliceable:
                return model(**arguments, logits_to_keep=positions).logits[0]
        if self._sliceable:
            logits = model(**arguments, logits_to_keep=batch.keep).logits
        else:
            logits = model(**arguments).logits[:, -batch.keep :]
        return logits.flatten(0, 1).index_select(0, positions)


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
        report_to="none",  # trackers are added guarded, see trainer.trackers
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        seed=config.data.seed % 2**32,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process drives one GPU; several GPUs are several processes
    return arguments
