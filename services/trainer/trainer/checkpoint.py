"""Publishing what a segment made: a plain Hugging Face folder, and beside it the state to go on from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.adapters import ADAPTER_FOLDER
from trainer.hardware import Hardware
from trainer.loading import Trainable


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A draft folder that takes the place of ``folder`` by a rename, if the block succeeds.

    What was there before is moved away and deleted: files that someone has mapped are never written to.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        draft = Path(scratch) / "new"
        draft.mkdir()
        yield draft
        for file in draft.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        draft.rename(folder)


def write_checkpoint(folder: Path, model: Any, trainable: Trainable, hardware: Hardware) -> None:
    """The model, in the precision that is served, with all that a server needs. Uses the model up.

    Adapters are merged into its weights, so that whatever serves whole models serves this one, and lie beside them.
    """
    model = getattr(model, "module", model)
    with replacing(folder) as draft:
        if trainable.adapters is not None:
            trainable.adapters.save(draft / ADAPTER_FOLDER)
            model = trainable.adapters.merged(hardware, draft / ADAPTER_FOLDER)
        model.to(hardware.saved_dtype)
        model.config.use_cache = True
        model.save_pretrained(draft)
        trainable.tokenizer.save_pretrained(draft)
