"""A fake ``vllm serve`` with the part of the HTTP interface of vLLM 0.32 that Ratchet uses.

It computes with the real weights of a checkpoint, though in its own simple way (the next token depends on the last
three through the embeddings), so that other weights give other answers and the score of an answer is what it was
given when it was generated.

    python fake_vllm.py serve PATH --served-model-name NAME --host HOST --port PORT
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from safetensors.numpy import load_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tokenizers import Tokenizer

CONTEXT = 1024
LAST = 3


class Weights:
    """A model of next tokens out of a folder's embeddings."""

    def __init__(self, folder: Path):
        table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].astype(np.float64)
        self._table = table / np.linalg.norm(table)

    def logprobs(self, token_ids: list[int]) -> np.ndarray:
        """Of every token of the vocabulary after these."""
        seen = self._table[token_ids[-LAST:]].sum(axis=0)
        logits = 40 * self._table @ np.sin(7 * seen)
        return logits - np.logaddexp.reduce(logits)


class Vllm:
    """One server's state."""

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.weights = Weights(folder)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))


def refusal(status: int, kind: str, message: str, param: str | None = None) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param, "code": status}}, status_code=status
    )


def build(vllm: Vllm) -> Starlette:
    async def health(_request: Request) -> Response:
        return Response(status_code=200)

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": "0.32.0"})

    async def complete(request: Request) -> Response:
        body = await request.json()
        if body["model"] != vllm.name:
            return refusal(404, "NotFoundError", f"The model `{body['model']}` does not exist.", "model")
        if len(body["prompt"]) + body["max_tokens"] > CONTEXT:
            message = f"This model's maximum context length is {CONTEXT} tokens."
            return refusal(400, "BadRequestError", message, "input_tokens")
        answer = Completion(vllm, body)
        if (body.get("response_format") or {}).get("type") not in (None, "json_object", "json_schema"):
            return refusal(400, "BadRequestError", "an unknown response_format", "response_format")
        if body.get("stream"):
            return StreamingResponse(answer.chunks(), media_type="text/event-stream")
        return JSONResponse(await answer.whole())

    routes = [
        Route("/health", health),
        Route("/version", version),
        Route("/v1/completions", complete, methods=["POST"]),
    ]
    return Starlette(routes=routes)


class Completion:
    """One answer, whole or in chunks of one token."""

    def __init__(self, vllm: Vllm, body: dict[str, Any]):
        self._vllm, self._weights, self._body = vllm, vllm.weights, body
        self._id = f"cmpl-{time.monotonic_ns():x}"

    async def whole(self) -> dict[str, Any]:
        steps = [step async for step in self._steps()]
        tokens, logprobs = [step[0] for step in steps], [step[1] for step in steps]
        choice = self._choice(tokens, logprobs, steps[-1][2], [step[3] for step in steps])
        if self._body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = self._of_prompt()
        used = {"prompt_tokens": len(self._body["prompt"]), "completion_tokens": len(tokens)}
        return {**self._frame(), "choices": [choice], "usage": used}

    async def chunks(self) -> AsyncIterator[str]:
        async for token, logprob, reason, top in self._steps():
            body = {**self._frame(), "choices": [self._choice([token], [logprob], reason, [top])]}
            yield f"data: {json.dumps(body)}\n\n"
        yield "data: [DONE]\n\n"

    async def _steps(self) -> AsyncIterator[tuple[int, float, str | None, dict[str, float]]]:
        asked, tokens = self._body, list(self._body["prompt"])
        dice = np.random.default_rng(asked.get("seed"))
        for step in range(asked["max_tokens"]):
            await asyncio.sleep(0)
            logprobs = self._weights.logprobs(tokens)
            hot = asked["temperature"] > 0
            token = int(
                (logprobs / asked["temperature"] + dice.gumbel(size=len(logprobs)) if hot else logprobs).argmax()
            )
            tokens.append(token)
            text = self._vllm.tokenizer.decode(tokens[len(asked["prompt"]) :])
            is_over = token in asked.get("stop_token_ids", ()) or any(stop in text for stop in asked.get("stop", ()))
            reason = "stop" if is_over else "length" if step + 1 == asked["max_tokens"] else None
            yield token, float(logprobs[token]), reason, self._likeliest(logprobs, token, asked.get("logprobs") or 0)
            if is_over:
                return

    def _of_prompt(self) -> list[dict[str, dict[str, Any]] | None]:
        prompt = self._body["prompt"]
        told: list[dict[str, dict[str, Any]] | None] = [None]
        for place in range(1, len(prompt)):
            logprobs = self._weights.logprobs(prompt[:place])
            found = self._likeliest(logprobs, prompt[place], self._body["prompt_logprobs"])
            told.append({name.split(":")[1]: {"logprob": value, "rank": 1} for name, value in found.items()})
        return told

    @staticmethod
    def _likeliest(logprobs: np.ndarray, chosen: int, count: int) -> dict[str, float]:
        """The chosen token and the likeliest ones, as with ``return_tokens_as_token_ids``."""
        ids = dict.fromkeys([chosen, *map(int, np.argsort(-logprobs)[:count])])
        return {f"token_id:{token}": float(logprobs[token]) for token in ids}

    def _choice(
        self, tokens: list[int], logprobs: list[float], reason: str | None, top: list[dict[str, float]]
    ) -> dict[str, Any]:
        names = [f"token_id:{token}" for token in tokens]
        with_logprobs = self._body.get("logprobs") is not None
        return {
            "index": 0,
            "text": self._vllm.tokenizer.decode(tokens),
            "logprobs": {"token_logprobs": logprobs, "tokens": names, "top_logprobs": top} if with_logprobs else None,
            "finish_reason": reason,
            "stop_reason": None,
            "token_ids": tokens if self._body.get("return_token_ids") else None,
        }

    def _frame(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": 0, "model": self._body["model"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    asked, _others = parser.parse_known_args()

    async def run() -> None:
        vllm = Vllm(asked.path, asked.served_model_name)
        app = build(vllm)
        await uvicorn.Server(uvicorn.Config(app, host=asked.host, port=asked.port, log_level="warning")).serve()

    asyncio.run(run())


if __name__ == "__main__":
    main()
