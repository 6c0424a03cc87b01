"""Make a generated batch again from what its row in the ledger remembers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ratchet.errors import PreconditionFailed
from ratchet.evaluation.standing import held_out
from ratchet.ledger.tables import Batch
from ratchet.settings import Settings

from datagen.generate import BatchGeneration, Share
from datagen.generators import registry
from datagen.generators.generator import GenerationContext
from datagen.order_record import OrderRecord


def remake(settings: Settings, batch: Batch, folder: Path) -> Iterator[str]:
    """The lines of the batch, made anew in this process; ``folder`` is for whatever its generator keeps meanwhile.

    Raises PreconditionFailed where something has changed that the rows depend on. A teacher, or a script that does not
    keep to its seed, may answer otherwise than it did.
    """
    origin = batch.provenance
    if "order" not in origin:
        raise PreconditionFailed(
            f"batch {batch.id} does not remember how it was made; it comes from {origin.get('generator')}."
        )
    record = OrderRecord.model_validate(origin["order"])
    record.require_same(settings)
    name = origin["generator"]
    source = next((source for source in settings.generation.sources if source.name == name), None)
    if source is None:
        raise PreconditionFailed(f"batch {batch.id} was made by {name}, which is not among generation.sources now.")
    workshop = GenerationContext(held_out(settings.suites), folder, inference=settings.inference)
    generator = registry.make(name, source.options)
    making = BatchGeneration(
        generator,
        workshop,
        mix_of(origin["mix"]),
        record.n,
        int(origin["seed"]),
        record.epoch_cap,
        lambda key: record.spent.get(key, 0),
    )
    return making.lines()


def mix_of(weights: dict[str, float]) -> list[Share]:
    """From ``family/level`` and weight, in the order in which they were recorded."""
    cells = ((name.rpartition("/"), weight) for name, weight in weights.items())
    return [(family, int(level), weight) for (family, _, level), weight in cells]
