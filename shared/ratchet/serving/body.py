"""Read a request's JSON body, bounded."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from ratchet.serving.refusal import ClientGone, Refusal

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request, model: type[Model], limit_bytes: int) -> Model:
    """The body as a model.

    Raises a 413 Refusal over the limit, a 400 one that names the wrong fields, and ClientGone where it breaks off.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                raise Refusal(413, "too_large", f"a request body has at most {limit_bytes} bytes.")
    except ClientDisconnect:
        raise ClientGone from None
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        faults = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        wrong = "; ".join(f"{field or 'body'}: {fault}" for field, fault in faults[:5])
        raise Refusal(400, "invalid_request", wrong, param=faults[0][0] or None) from error
