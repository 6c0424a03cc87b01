"""What stands in the way of a model folder is said in one sentence each, with the way out, before torch is loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.inference.tiny import build_tiny_model
from ratchet.run.model_report import inspect_model

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("built") / "mine")


@pytest.fixture
def mine(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "mine"))


def states(file: str, **fields: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**found, **fields}))

    return change


def renames(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


def adds(name: str, *, weights: bool = False) -> Change:
    def change(folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes() if weights else b"{}"
        (folder / name).write_bytes(content)

    return change


def lists(*shards: Any) -> Change:
    return states("model.safetensors.index.json", weight_map={f"w{n}": shard for n, shard in enumerate(shards)})


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


REFUSED: dict[str, tuple[Change, str]] = {
    "adapter": (adds("adapter_config.json"), "merge them into their base model first"),
    "gguf": (renames("model.safetensors", "m-Q4.gguf"), "as GGUF .m-Q4.gguf., .*gguf_file='m-Q4.gguf'"),
    "pickle": (renames("model.safetensors", "pytorch_model.bin"), "a pickle, which can run code and is never opened"),
    "none": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights: model.safetensors"),
    "shard": (
        both(renames("model.safetensors", "a.safetensors"), lists("a.safetensors", "b.safetensors")),
        "b.safetensors is missing, which .* names: download the model again",
    ),
    "stale index": (lists("old-1.safetensors"), "old-1.safetensors is missing, which it names: remove the one"),
    "two sets": (
        both(adds("a.safetensors", weights=True), lists("a.safetensors")),
        "there are two sets of weights: remove the one",
    ),
    "index without a map": (states("model.safetensors.index.json", weight_map=["a"]), "index.json has no weight_map"),
    "index of numbers": (lists(7), "names 7, which is no file of this folder"),
    "index elsewhere": (
        both(renames("model.safetensors", "a.safetensors"), lists("../mine/a.safetensors")),
        "names '../mine/a.safetensors', which is no file of this folder",
    ),
    "index without metadata": (
        both(renames("model.safetensors", "a.safetensors"), lists("a.safetensors")),
        'index.json has no metadata, .*: add "metadata": {} to it',
    ),
    "cut": (lambda folder: os.truncate(folder / "model.safetensors", 5000), "model.safetensors has 5000 bytes, but"),
    "code": (states("config.json", auto_map={"AutoModel": "x.Y"}), "needs remote code .auto_map., which is never run"),
    "encoder": (
        states("config.json", is_encoder_decoder=True, architectures=["T5ForConditionalGeneration"]),
        "T5ForConditionalGeneration, an encoder-decoder: only decoders",
    ),
    "vision": (
        states("config.json", vision_config={}, architectures=["Qwen2VLForConditionalGeneration"]),
        "takes images or sound .vision_config.: only models of text alone",
    ),
    "no head": (states("config.json", architectures=["BertForMaskedLM"]), "BertForMaskedLM, which writes no text"),
    "quantized": (
        states("config.json", quantization_config={"quant_method": "gptq"}),
        "are quantized .gptq.: use the original weights",
    ),
    "config": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer: tokenizer.json is expected"),
    "generation": (lambda folder: (folder / "generation_config.json").write_text("["), "generation_config.json is not"),
    "template": (
        lambda folder: (folder / "chat_template.jinja").unlink(),
        "has no chat template, .*: set model.chat_template to a Jinja file",
    ),
}


def test_a_good_folder_has_nothing_to_say(mine: Path) -> None:
    report = inspect_model(mine)
    assert not report.refusals
    assert not report.notes
    (nowhere,) = inspect_model(mine / "elsewhere").refusals
    assert nowhere.endswith("elsewhere is not a folder.")


@pytest.mark.parametrize("case", REFUSED)
def test_what_stands_in_the_way_is_one_sentence_with_the_way_out(mine: Path, case: str) -> None:
    change, sentence = REFUSED[case]
    change(mine)
    (refusal,) = inspect_model(mine).refusals
    assert re.search(sentence, refusal), refusal
    assert "\n" not in refusal


def test_files_of_another_owner_are_named(mine: Path) -> None:
    mine.parent.chmod(0o755)
    (mine / "model.safetensors").chmod(0)
    (refusal,) = as_other_user(mine)
    assert refusal.startswith(f"{mine / 'model.safetensors'}: user ")
    assert refusal.endswith("may not read it: give them permission.")
    mine.parent.chmod(0)
    assert as_other_user(mine) == (f"{mine}: this user may not read it: give them permission.",)


def as_other_user(folder: Path) -> tuple[str, ...]:
    """The refusals that a user sees who is not root, to whom all files are open."""
    if os.geteuid() != 0:
        return inspect_model(folder).refusals
    for parent in folder.parent.parents:
        if parent.stat().st_mode & 0o005 == 0o005:
            break
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        return inspect_model(folder).refusals
    finally:
        os.seteuid(0)


def test_a_tokenizer_and_a_template_from_elsewhere_count(mine: Path, built: Path, tmp_path: Path) -> None:
    (mine / "tokenizer.json").unlink()
    (mine / "chat_template.jinja").unlink()
    assert len(inspect_model(mine).refusals) == 2
    assert not inspect_model(mine, tokenizer=built).refusals
    file = tmp_path / "own.jinja"
    file.write_text("{{ enable_thinking }}")
    report = inspect_model(mine, built, file)
    assert not report.refusals
    assert "profile.template_variables to { enable_thinking = false }" in report.notes[0]
    (missing,) = inspect_model(mine, built, tmp_path / "none.jinja").refusals
    assert missing.endswith("none.jinja: no such file.")


def test_a_folder_is_looked_through_without_torch_or_transformers(mine: Path) -> None:
    code = (
        "import sys, pathlib; from ratchet.run.model_report import inspect_model; "
        f"assert not inspect_model(pathlib.Path({str(mine)!r})).refusals; "
        "assert not {'torch', 'transformers', 'numpy', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
