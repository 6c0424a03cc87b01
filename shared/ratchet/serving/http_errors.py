"""Errors of the server as HTTP responses in the format of the OpenAI API, and reading request bodies up to a limit."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from ratchet.errors import ServingError


class ApiError(ServingError):
    """An error response: HTTP status, short code, and a message with the remedy. ``param`` is the field concerned."""

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
        """The response body, in the format of the OpenAI API."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class ClientDisconnected(ApiError):
    """The client has disconnected. Web servers log this as status 499."""

    def __init__(self) -> None:
        super().__init__(499, "client_disconnected", "the client disconnected.")


class TimedOut(ApiError):
    """There was no answer within ``serving.request_timeout_s``."""

    def __init__(self, timeout_s: float):
        super().__init__(503, "timeout", f"no answer within {timeout_s:g} s.", retry_after_s=5)


class BeingUnloaded(ApiError):
    """The checkpoint accepts no more requests, because it is being unloaded."""

    def __init__(self, checkpoint_id: str):
        super().__init__(404, "model_not_found", f"{checkpoint_id} is being unloaded.")


Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request, model: type[Model], limit_bytes: int) -> Model:
    """Parse the request body as ``model``.

    Raises a 413 ApiError over the limit, a 400 ApiError that names invalid fields, and ClientDisconnected if the body
    is incomplete.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                raise ApiError(413, "too_large", f"a request body has at most {limit_bytes} bytes.")
    except ClientDisconnect:
        raise ClientDisconnected from None
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        faults = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        wrong = "; ".join(f"{field or 'body'}: {fault}" for field, fault in faults[:5])
        raise ApiError(400, "invalid_request", wrong, param=faults[0][0] or None) from error
