"""Publishing what a segment made: a plain Hugging Face folder, and beside it the state to go on from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.inference.chat import Tokenizer

from trainer.hardware import Hardware


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


def write_checkpoint(folder: Path, model: Any, tokenizer: Tokenizer, hardware: Hardware) -> None:
    """The model, in the precision that is served, with all that a server needs. Changes the model's dtype."""
    model = getattr(model, "module", model)
    model.to(hardware.saved_dtype)
    model.config.use_cache = True
    with replacing(folder) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
