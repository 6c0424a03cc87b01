"""`trainer` on the command line: effects of the flags, sources of values, and errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from ratchet.inference.tiny import build_tiny_model
from trainer import cli
from trainer.cli import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, EXIT_WRONG, parse
from trainer.config import FLAGS, ConfigLoader
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter
from trainer.run_folder import train_file
from trainer.segment import ErrorKind, TrainingResult

from tests.support.examples import sums, write_examples

from .full_disk import files_of_at_most

ROWS = 16


@dataclass(frozen=True)
class Outcome:
    """The result of a command line."""

    result: TrainingResult
    folder: Path

    def __getattr__(self, name: str) -> Any:
        return self.result.summary[name]

    @property
    def previews(self) -> list[dict[str, Any]]:
        file = self.folder / "previews.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@dataclass
class Commands:
    """Runs of `trainer` on sixteen sums, without its process."""

    folder: Path
    rows: Path
    base_model: Path
    known: dict[tuple[str, ...], Outcome] = field(default_factory=dict)

    def run(self, *flags: str) -> Outcome:
        """The outcome of these flags, over those of the shortest run; asked for again, it is not run again."""
        if flags not in self.known:
            folder = self.folder / f"run-{len(self.known)}"
            given = {"--dataset": str(self.rows), "--model": str(self.base_model), "--output-dir": str(folder)}
            shortest = [word for pair in given.items() if pair[0] not in flags for word in pair]
            small = ["--set=hyperparams.batch_size=8"] if "--batch-size" not in flags else []
            config = ConfigLoader.from_args_and_json(parse([*shortest, *small, *flags]))
            status = TrainingStatusWriter(config.output.output_dir / "training_status.json")
            result = train_file(TrainerEngine(status), config, lambda: False)
            self.known[flags] = Outcome(result, config.output.output_dir)
        return self.known[flags]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Commands:
    folder = tmp_path_factory.mktemp("commands")
    return Commands(folder, write_examples(folder / "sums.jsonl", sums(ROWS, longest=4)), base_model)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without settings from the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("RATCHET_")]:
        monkeypatch.delenv(variable)
    return tmp_path


def dataset(commands: Commands, tmp_path: Path) -> None:
    other = write_examples(tmp_path / "other.jsonl", sums(8, seed=9))
    assert commands.run("--dataset", str(other)).rows == 8


def model(commands: Commands, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1)
    assert commands.run("--model", str(other)).weights != commands.run().weights


def output_dir(commands: Commands, tmp_path: Path) -> None:
    outcome = commands.run("--output-dir", str(tmp_path / "there"))
    assert outcome.result.last_checkpoint_path == str(tmp_path / "there" / "final_model")
    assert (tmp_path / "there" / "final_model" / "model.safetensors").is_file()


def batch_size(commands: Commands, tmp_path: Path) -> None:
    assert (commands.run("--batch-size", "16").steps, commands.run().steps) == (1, 2)


def learning_rate(commands: Commands, tmp_path: Path) -> None:
    assert commands.run("--learning-rate", "1e-4").weights != commands.run().weights


def warmup_steps(commands: Commands, tmp_path: Path) -> None:
    assert commands.run("--warmup-steps", "9").weights != commands.run().weights


def epochs(commands: Commands, tmp_path: Path) -> None:
    assert commands.run("--epochs", "2").rows == 2 * ROWS


def max_steps(commands: Commands, tmp_path: Path) -> None:
    outcome = commands.run("--max-steps", "1")
    assert (outcome.result.global_step, outcome.result.finished) == (1, False)


def save_steps(commands: Commands, tmp_path: Path) -> None:
    outcome = commands.run("--save-steps", "1")
    assert (outcome.folder / "checkpoint-1" / "final_model").is_dir()
    assert (outcome.result.global_step, outcome.result.finished) == (2, True)
    assert outcome.weights == commands.run().weights


def eval_steps(commands: Commands, tmp_path: Path) -> None:
    assert {preview["step"] for preview in commands.run("--eval-steps", "2").previews} == {2}
    assert commands.run().previews == []


def num_eval_samples(commands: Commands, tmp_path: Path) -> None:
    assert len(commands.run("--eval-steps", "2", "--num-eval-samples", "1").previews) == 1
    assert len(commands.run("--eval-steps", "2").previews) == 4


def max_length(commands: Commands, tmp_path: Path) -> None:
    longest = commands.run("--max-length", "16")
    assert longest.rows_too_long > 0
    assert longest.rows < ROWS


def precision(commands: Commands, tmp_path: Path) -> None:
    assert commands.run("--bf16").precision == "bf16"
    assert commands.run("--fp16").precision == "fp16"
    assert commands.run("--fp32").precision == "fp32"


def profile(commands: Commands, tmp_path: Path) -> None:
    formatted = commands.run("--profile", "regime3")
    assert formatted.profile == "regime3"
    assert formatted.tokens > commands.run().tokens


def system_prompt(commands: Commands, tmp_path: Path) -> None:
    assert commands.run("--system-prompt", "Be brief.").tokens > commands.run().tokens


def resume_from_checkpoint(commands: Commands, tmp_path: Path) -> None:
    begun = commands.run("--max-steps", "1", "--warmup-steps", "3")
    gone_on = commands.run("--resume-from-checkpoint", str(begun.folder), "--warmup-steps", "3")
    whole = commands.run("--warmup-steps", "3")
    assert (gone_on.result.global_step, gone_on.total_tokens) == (2, whole.total_tokens)


def test_adapters_resume_across_saves(commands: Commands) -> None:
    outcome = commands.run("--set=model.lora_rank=2", "--save-steps", "1", "--model", "tiny")
    assert outcome.result.error_message is None
    assert (outcome.result.global_step, outcome.result.finished) == (2, True)


def test_a_model_of_the_hub_is_trained_from_the_cache_segment_after_segment(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name and offline, in full and with adapters, which keep it as their base."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--acme--tiny"
    shutil.copytree(commands.base_model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    for kind in ([], ["--set=model.lora_rank=2"]):
        outcome = commands.run(*kind, "--save-steps", "1", "--model", "acme/tiny")
        assert outcome.result.error_message is None
        assert (outcome.result.global_step, outcome.result.finished) == (2, True)
        assert outcome.weights == commands.run(*kind, "--save-steps", "1").weights, "the same model in a folder"
    begun = commands.run("--set=model.lora_rank=2", "--max-steps", "1", "--model", "acme/tiny")
    resumed = ["--set=model.lora_rank=2", "--resume-from-checkpoint", str(begun.folder), "--model", "acme/tiny"]
    assert commands.run(*resumed).result.global_step == 2
    absent = commands.run("--model", "acme/absent").result
    assert absent.error_kind is ErrorKind.MODEL
    assert "neither a folder nor a model on the hub" in str(absent.error_message)


EFFECTS: dict[str, Callable[[Commands, Path], None]] = {
    function.__name__: function
    for function in (
        dataset,
        model,
        output_dir,
        batch_size,
        learning_rate,
        warmup_steps,
        epochs,
        max_steps,
        save_steps,
        eval_steps,
        num_eval_samples,
        max_length,
        precision,
        profile,
        system_prompt,
        resume_from_checkpoint,
    )
}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_has_its_effect(flag: str, commands: Commands, tmp_path: Path) -> None:
    EFFECTS[flag](commands, tmp_path)


def test_flags_override_environment_which_overrides_the_file(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.json").write_text('{"hyperparams": {"batch_size": 2, "num_epochs": 2, "max_length": 64}}')
    monkeypatch.setenv("RATCHET_HYPERPARAMS__BATCH_SIZE", "3")
    monkeypatch.setenv("RATCHET_HYPERPARAMS__NUM_EPOCHS", "3")
    flags = ["--config", "mine.json", "--dataset", "rows.jsonl", "--batch-size", "4", "--set", "data.shuffle=false"]
    config = ConfigLoader.from_args_and_json(parse(flags))
    assert (config.hyperparams.batch_size, config.hyperparams.num_epochs, config.hyperparams.max_length) == (4, 3, 64)
    assert not config.data.shuffle
    assert config.output.output_dir == (elsewhere / "run" / "runs" / "rows").resolve()


def test_the_prior_systems_file_is_read_from_the_folder(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.json").write_text(
        '{"hyperparams": {"batch_size": 0, "eval_steps": 50}, "data": {"dataset_path": "rows.jsonl"}}'
    )
    assert cli.main([]) == EXIT_WRONG
    said = capsys.readouterr().err
    assert "config.json: hyperparams.eval_steps is called monitoring.preview_interval now." in said
    assert "--batch-size (hyperparams.batch_size): Input should be greater than or equal to 1" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--batchsize", "4"], "did you mean --batch-size?"),
        (["--batch-size", "many", "--dataset", "x"], "--batch-size (hyperparams.batch_size): Input should be"),
        (["--bf16", "--fp16"], "not allowed with"),
        (["--set", "batch_size=4"], "write SECTION.FIELD=VALUE"),
        (["--set", "hyperparams.batchsize=4"], "did you mean hyperparams.batch_size?"),
        ([], "give --dataset FILE"),
        (["--config", "absent.toml"], "absent.toml: no such file (--config)"),
        (["--dataset", "absent.jsonl"], "absent.jsonl: no such file"),
        (["--dataset", "rows.jsonl", "--model", "absent"], "--model takes a folder"),
        (["--dataset", "rows.jsonl", "--profile", "nobody"], "emoji_think"),
        (["--dataset", "rows.jsonl", "--resume-from-checkpoint", "none"], "none is no run to resume"),
        (["--dataset", "rows.jsonl"], "rows.jsonl:2:"),
        (["--dataset", "unanswered.jsonl"], "unanswered.jsonl: DataError: line 2: no assistant turn"),
    ],
)
def test_errors_name_the_way_out(
    flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.jsonl").write_text('{"question": "q", "answer": "a"}\n{"question": "q"\n')
    asked = '{"messages": [{"role": "user", "content": "q"}]}\n'
    Path("unanswered.jsonl").write_text(f'{{"question": "q", "answer": "a"}}\n{asked}')
    monkeypatch.setattr(sys, "argv", ["trainer", *flags])
    try:
        code = cli.main()
    except SystemExit as end:
        code = int(str(end.code))
    assert code == EXIT_WRONG
    assert said in capsys.readouterr().err


def test_help_shows_examples_exit_codes_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == EXIT_DONE
    shown = capsys.readouterr().out
    for words in ("--resume-from-checkpoint", "examples:", "exit codes:", "hyperparams.batch_size", '{"question"'):
        assert words in shown


def test_a_run_prints_its_loss_and_a_failed_one_has_its_own_exit_code(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["--dataset", str(commands.rows), "--model", str(commands.base_model), "--max-steps", "1"]
    assert cli.main([*rows, "--output-dir", "out"]) == EXIT_DONE
    assert "step 1, loss" in capsys.readouterr().out
    with files_of_at_most(300_000):
        assert cli.main([*rows, "--output-dir", "full"]) == EXIT_FAILED
    assert "The disk of full/.segment/state is full" in capsys.readouterr().err
    Path("blocked").write_text("a file where a folder should be")
    assert cli.main([*rows, "--output-dir", "blocked/below"]) == EXIT_WRONG


def test_resuming_a_finished_run_with_the_same_rows_trains_nothing(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = commands.run().folder
    before = (folder / "state" / "state.json").read_bytes()
    rows = ["--dataset", str(commands.rows), "--model", str(commands.base_model), "--output-dir", str(folder)]
    assert cli.main([*rows, "--resume-from-checkpoint", str(folder)]) == EXIT_DONE
    assert "nothing is left: all of" in capsys.readouterr().out
    assert (folder / "state" / "state.json").read_bytes() == before


@pytest.mark.slow
def test_sigterm_saves_and_the_run_can_be_resumed(commands: Commands, tmp_path: Path) -> None:
    rows = write_examples(tmp_path / "many.jsonl", sums(4000, longest=4))
    flags = [
        "--dataset",
        str(rows),
        "--output-dir",
        "out",
        "--batch-size",
        "4",
        "--set",
        "monitoring.preview_backend=none",
    ]
    command = [sys.executable, "-m", "trainer", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stdout is not None
        first = running.stderr.readline()
        while not first.startswith("step ") and running.poll() is None:
            first = running.stderr.readline()
        running.send_signal(signal.SIGTERM)
        said = running.stdout.read()
        assert running.wait() == EXIT_STOPPED
    assert "--resume-from-checkpoint out resumes" in said
    before = json.loads(Path("out/state/state.json").read_text())["global_step"]
    flags = [*flags, "--resume-from-checkpoint", "out", "--max-steps", str(before + 1)]
    assert cli.main(flags) == EXIT_DONE
    assert json.loads(Path("out/state/state.json").read_text())["global_step"] == before + 1
