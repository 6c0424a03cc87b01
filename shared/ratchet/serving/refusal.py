"""What the server says no with."""

from __future__ import annotations

from typing import Any

from ratchet.errors import ServingError


class Refusal(ServingError):
    """A request that is not served: an HTTP status, a short code, and the way out in words.

    ``param`` is the field of the request that it is about.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: int | None = None, param: str | None = None
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """In the shape of the OpenAI API."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class ClientGone(Refusal):
    """Nobody is there any longer to be answered. The status is the one that web servers write into their logs."""

    def __init__(self) -> None:
        super().__init__(499, "client_gone", "the client hung up.")


class TimedOut(Refusal):
    """The answer did not come in the time that a request may take."""

    def __init__(self, timeout_s: float):
        super().__init__(503, "timeout", f"no answer within {timeout_s:g} s.", retry_after_s=5)


class Retired(Refusal):
    """The checkpoint takes no more requests: it is being unloaded."""

    def __init__(self, checkpoint_id: str):
        super().__init__(404, "model_not_found", f"{checkpoint_id} is being unloaded.")
