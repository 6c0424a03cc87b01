"""The model in the place where it is computed: whole on one device, or shared out among several processes."""

from __future__ import annotations

from ratchet.file_lock import FileLock
from ratchet.profiles.profile import Profile
from ratchet.settings.training import TrainerConfig

from trainer.hardware import Hardware
from trainer.loading import Trainable, load_model
from trainer.sharding import mesh_of, shard
from trainer.state import restore_master

TURNS = ".turns"
"""A lock in a run's folder, held by the process that reads the model."""


def placed(config: TrainerConfig, hardware: Hardware, profile: Profile) -> Trainable:
    """Load a model, with the weights that a state to go on from knows better, and put it on its device.

    A model that is shared out is read by one process after the other, so that main memory holds it whole but once,
    and beside that no more than each one's share. Raises as load_model and restore_master do.
    """
    if not hardware.sharded:
        trainable = _restored(config, hardware, profile)
        if not config.model.load_in_4bit:  # quantized weights are in their place already
            trainable.model.to(hardware.device)
        return trainable
    mesh = mesh_of(hardware)
    with FileLock.acquire(config.output.output_dir / TURNS):
        trainable = _restored(config, hardware, profile)
        shard(trainable.model, hardware, mesh, reshard=config.environment.fsdp_reshard)
    return trainable


def _restored(config: TrainerConfig, hardware: Hardware, profile: Profile) -> Trainable:
    trainable = load_model(config, hardware, profile)
    if config.output.resume_from is not None:
        restore_master(config.output.resume_from, trainable.model)
    return trainable
