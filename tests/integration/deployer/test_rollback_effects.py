"""A champion with slow or failing answers is rolled back, as its clients see it.

The models are real ones with a constant answer: the champion ends its answer at once, the challenger is large and
never ends. So it is slow, or too slow, on any machine.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ratchet.inference.tiny import build_tiny_model, build_tiny_tokenizer
from ratchet.ledger.tables import BlockRow, VerdictRow

from tests.support.home import small_home
from tests.support.workers import wait_until

from .server_process import PATIENCE_S, Deploying

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

LARGE = {"num_hidden_layers": 8, "hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 12}
FEW = {"eval_items": 12, "probe_items": 4, "confirm_items": 4, "max_new_tokens": 4}


def constant_model(folder: Path, says: str, **architecture: Any) -> Path:
    """A model whose next token is always ``says``: one hidden dimension is equal for all tokens, and decides."""
    from safetensors.torch import load_file, save_file

    build_tiny_model(folder, tie_word_embeddings=False, **architecture)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[0] = 0.0
    tensors["model.embed_tokens.weight"][:, 0] = 1.0
    tensors["model.norm.weight"][1:] = 0.0
    tensors["lm_head.weight"].zero_()
    tensors["lm_head.weight"][build_tiny_tokenizer().convert_tokens_to_ids(says), 0] = 10.0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@contextmanager
def deploying(tmp_path: Path, **serving: Any) -> Iterator[Deploying]:
    """A home whose champion ends every answer at once, with a server process."""
    end = build_tiny_tokenizer().eos_token

    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        constant_model(Path(spec["folder"]), end)
        return {"base_model": str(spec["model"])}

    told = {"port": 0, "watch_s": PATIENCE_S, **serving}
    with small_home(tmp_path / "run", prepare, suites=FEW, serving=told) as home:
        found = Deploying(home, tmp_path)
        found.start_server()
        try:
            yield found
        finally:
            found.kill_server()


class Clients:
    """Threads that query the live model without a pause, and keep the answering checkpoint or the error status."""

    def __init__(self, url: str, count: int, max_tokens: int):
        self._url, self._over = url, threading.Event()
        self._ask = {"model": "ratchet", "messages": [{"role": "user", "content": "1+2="}], "max_tokens": max_tokens}
        self.heard: list[str | int] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait for this number of further answers."""
        target = len(self.heard) + more
        wait_until(lambda: len(self.heard) >= target, PATIENCE_S, f"{more} answers")

    def wait_until_only(self, checkpoint: str) -> None:
        """Wait until this checkpoint has given twenty answers in a row."""
        wait_until(lambda: self.heard[-20:] == [checkpoint] * 20, PATIENCE_S, f"answers of {checkpoint} alone")

    def _run(self) -> None:
        with httpx.Client(timeout=PATIENCE_S) as http:
            while not self._over.is_set():
                response = http.post(f"{self._url}/v1/chat/completions", json=self._ask)
                ok = response.status_code == 200
                self.heard.append(response.json()["ratchet"]["checkpoint"] if ok else response.status_code)


def challenged(deploying: Deploying, clients: Clients, model: Path) -> str:
    """Deploy the model under client traffic; returns the checkpoint's id after the deployer's verdict."""
    clients.wait_for(100)
    bad = deploying.add_model(model)
    deploying.sweep()
    deploying.deploy_by_hand(bad)
    deploying.sweep()
    return bad


def why_rolled_back(deploying: Deploying, checkpoint: str) -> str:
    with deploying.home.ledger.read() as session:
        verdict = session.query(VerdictRow).filter_by(system="deployment", subject_id=checkpoint).one()
        assert [row.checkpoint_id for row in session.query(BlockRow)] == [checkpoint]
    assert verdict.outcome == "rolled back"
    return verdict.reason


def test_slow_answers_roll_back_to_the_last_champion(tmp_path: Path) -> None:
    with deploying(tmp_path, max_latency_ratio=2.0) as home:
        base = home.home.base_id()
        home.sweep()
        with Clients(home.url(), 4, max_tokens=64) as clients:
            slow = challenged(home, clients, constant_model(tmp_path / "slow", "7", **LARGE))
            clients.wait_until_only(base)
        assert "requests take up to" in why_rolled_back(home, slow)
        assert clients.heard.count(slow) >= 20
        assert set(clients.heard) == {base, slow}


def test_errors_to_clients_roll_back_to_the_last_champion(tmp_path: Path) -> None:
    with deploying(tmp_path, request_timeout_s=1.0) as home:
        base = home.home.base_id()
        home.sweep()
        with Clients(home.url(), 4, max_tokens=900) as clients:
            failing = challenged(home, clients, constant_model(tmp_path / "failing", "7", **LARGE))
            clients.wait_until_only(base)
        # The watch asks as the clients do, and on a slow machine its own question may be the first to fail.
        assert re.search(
            "requests failed, over the limit of 2%|a probe failed: .* no answer within 1 s",
            why_rolled_back(home, failing),
        )
        assert 503 in clients.heard
        assert home.answerer() == home.identity(base)
