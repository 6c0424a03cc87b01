"""Previews: a few questions answered while training goes on, which never block or break it."""

from trainer.previews.backend import PreviewBackend
from trainer.previews.factory import create_preview_backend
from trainer.previews.local import LocalPreviewBackend
from trainer.previews.remote import Remote3090Backend

__all__ = ["LocalPreviewBackend", "PreviewBackend", "Remote3090Backend", "create_preview_backend"]
