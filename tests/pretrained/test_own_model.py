"""A user's way with a real pretrained model and rows that nobody here made: init, run, why, export, ask.

The commands of the README, on a hundred published rows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import httpx
import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.evaluation.load_evaluation import load_evaluation
from ratchet.ledger import Ledger
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import CheckpointRow
from ratchet.ports import free_port
from ratchet.user_tasks.general import read_prompts

from tests.support.pretrained import pretrained_model

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(1_800)]

BABI = Path(__file__).parents[1] / "data" / "babi_qa1_100.jsonl"
PROMPTS = tuple(prompt for prompt in read_prompts("builtin") if len(prompt) < 38)
"""Some of the general prompts: those with short answers, so that the base model has answered them within seconds."""

ANSWER_TOKENS = 16

VLLM = os.environ.get("RATCHET_TEST_VLLM", "")
needs_vllm = pytest.mark.skipif(not VLLM, reason="RATCHET_TEST_VLLM names no vLLM to serve with")

RATCHET = str(Path(sys.executable).with_name("ratchet"))


class OwnHome:
    """A folder with a user's settings, and the command line in it. ``init`` and ``run`` said ``told`` and ``ended``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.told = self.ended = ""
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": text, "completion": "-"}) + "\n" for text in PROMPTS))
        self.environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "RATCHET_SUITES__GENERAL_PROMPTS": str(prompts),
            "RATCHET_SUITES__MAX_NEW_TOKENS": "24",
            "RATCHET_SERVING__PORT": str(self.port),
            "RATCHET_MINING__SEARCH_ITEMS": "8",
            "RATCHET_SERVING__WATCH_S": "3",
        }

    def ratchet(self, *arguments: str) -> str:
        done = subprocess.run(
            [RATCHET, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[httpx.Client]:
        """A client of `ratchet serve`, which serves the champion; in fp32, where answers do not depend on the batch."""
        environment = {**self.environment, "RATCHET_INFERENCE__DTYPE": "fp32"}
        with subprocess.Popen([RATCHET, "serve"], cwd=self.folder, env=environment) as server:
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60.0, trust_env=False) as client:
                    yield _when_live(client)
            finally:
                server.terminate()


def _when_live(client: httpx.Client, within_s: float = 120.0) -> httpx.Client:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if client.get("/v1/models").json().get("data"):
                return client
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError("the server has nothing live")


@contextmanager
def vllm(*served: str) -> Iterator[httpx.Client]:
    """A client of a real vLLM on this machine's CPU, in fp32."""
    port = free_port()
    command = [VLLM, "serve", *served, "--port", str(port), "--dtype", "float32", "--max-model-len", "256"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen([*command, "--enforce-eager"], env=environment) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False) as client:
                yield _when_live(client, within_s=400.0)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> OwnHome:
    made = OwnHome(tmp_path_factory.mktemp("own"))
    made.told = made.ratchet("init", "--model", str(pretrained_model()), "--data", str(BABI))
    made.ended = made.ratchet("run", "--cycles", "1")
    return made


def test_init_says_what_is_trained_held_out_and_provable(home: OwnHome) -> None:
    assert "134.5M parameters in bf16. Training adapters of rank 16 (LoRA)" in home.told
    assert "task babi_qa1: 100 different rows of babi_qa1_100.jsonl." in home.told
    assert re.search(r"held out  \d+ probe · \d+ eval · \d+ confirm", home.told)
    assert re.search(r"On \d+ held-out rows a gain of \d+ points or more is proved", home.told)


def test_a_checkpoint_of_the_users_rows_is_trained_judged_and_decided_on(home: OwnHome) -> None:
    assert "1 checkpoint trained, judged and decided in" in home.ended
    assert "No dead letters." in home.ended
    assert re.search(r"babi_qa1: \d+% right", home.ended)
    said = home.ratchet("why", "1")
    for system in ("testing", "regression", "comparison", "deployment"):
        assert system in said


def test_training_lowered_the_loss_of_held_out_answers(home: OwnHome) -> None:
    """The probe rows were not trained on."""
    with ledger_of(home) as ledger, ledger.read() as session:
        rows = session.query(CheckpointRow).order_by(CheckpointRow.ordinal).all()
        suite = current(session, "probe")
        records = [evaluation(session, row.id, suite.id) for row in rows[:2]]
    store = ArtifactStore((home.folder / "run" / "artifacts").as_uri())
    means = []
    for record in records:
        assert record is not None
        own = [item.gold_nll for item in load_evaluation(store, record).items if item.family == "babi_qa1"]
        means.append(fmean(nll for nll in own if nll is not None))
    assert means[1] < means[0] - 0.1


def test_what_is_exported_answers_as_what_is_served(home: OwnHome, tmp_path: Path) -> None:
    home.ratchet("export", "--to", str(tmp_path / "champion"))
    with home.serving() as client:
        for prompt, answer in greedy_answers(tmp_path / "champion", PROMPTS[:3]).items():
            assert answer_of(client, "ratchet", prompt) == answer


def answer_of(client: httpx.Client, model: str, prompt: str) -> str:
    chat = [{"role": "user", "content": prompt}]
    body = {"model": model, "messages": chat, "temperature": 0, "max_tokens": ANSWER_TOKENS}
    answered = client.post("/v1/chat/completions", json=body).raise_for_status()
    return str(answered.json()["choices"][0]["message"]["content"])


def greedy_answers(folder: Path, prompts: Sequence[str]) -> dict[str, str]:
    """What transformers answers from a folder, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answers = {}
    for prompt in prompts:
        chat = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        tokens = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)[0]
        answers[prompt] = str(tokenizer.decode(tokens[inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


@needs_vllm
@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
def test_what_is_exported_answers_alike_in_vllm(home: OwnHome, tmp_path: Path, adapter: bool) -> None:
    """A checkpoint's merged weights, and its adapter beside the base, as vLLM reads them."""
    whole, alone = tmp_path / "whole", tmp_path / "adapter"
    home.ratchet("export", "1", "--to", str(whole))
    home.ratchet("export", "1", "--adapter", "--to", str(alone))
    lora = ("--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"own={alone}")
    served = (str(pretrained_model()), *lora) if adapter else (str(whole), "--served-model-name", "own")
    expected = greedy_answers(whole, PROMPTS[:3])
    with vllm(*served) as client:
        for prompt, answer in expected.items():
            assert answer_of(client, "own", prompt) == answer


def test_the_adapter_alone_can_be_had(home: OwnHome, tmp_path: Path) -> None:
    home.ratchet("export", "1", "--adapter", "--to", str(tmp_path / "adapter"))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 16
    assert config["base_model_name_or_path"] == str(pretrained_model())
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 50_000_000


@contextmanager
def ledger_of(home: OwnHome) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{home.folder / 'run' / 'ledger.db'}")
    try:
        yield ledger
    finally:
        ledger.close()
