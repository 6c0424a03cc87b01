"""What the server says no with."""

from __future__ import annotations

from ratchet.errors import ServingError


class Refusal(ServingError):
    """A request that is not served: an HTTP status, a short code, and the way out in words."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class Retired(Refusal):
    """The checkpoint takes no more requests: it is being unloaded."""

    def __init__(self, checkpoint_id: str):
        super().__init__(404, "model_not_found", f"{checkpoint_id} is being unloaded.")
