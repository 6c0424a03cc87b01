"""`trainer`: train a model on a file from the command line."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from ratchet.errors import RatchetError
from ratchet.settings.sources import LegacySetting
from ratchet.settings.training import TrainerConfig

from trainer.arguments import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, EXIT_WRONG, flag_of, parse
from trainer.config import FLAGS, ConfigLoader
from trainer.launch import stop_on
from trainer.monitoring import TrainingStatusWriter
from trainer.run_folder import nothing_left, require_folder
from trainer.segment_types import ErrorKind, TrainingResult

STATUS = "training_status.json"

WRONG = {ErrorKind.SETTINGS, ErrorKind.DATA, ErrorKind.TEMPLATE, ErrorKind.MODEL, ErrorKind.RESUME}
"""Failures that another command line, file or row would not have."""

WAYS_OUT: Mapping[ErrorKind, str] = {
    ErrorKind.DATA: "Mend that row or take it out; docs/systems.md has the shapes that are read.",
    ErrorKind.TEMPLATE: "The tokenizer's chat template has to keep question and answer and to end the answer.",
    ErrorKind.MODEL: "--model takes a folder with config.json, a tokenizer and *.safetensors, a hub name, or `tiny`.",
    ErrorKind.RESUME: "Go on with the same rows and model, or leave --resume-from-checkpoint out to begin anew.",
    ErrorKind.DIVERGED: "Lower --learning-rate, or look at the rows; nothing was overwritten.",
    ErrorKind.OUT_OF_MEMORY: "Lower --max-length, or train adapters (--set model.lora_rank=16).",
    ErrorKind.SURROUNDINGS: "Once that is mended, --resume-from-checkpoint goes on from the last checkpoint.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = parse(argv)
    try:
        with _warnings_as_lines():
            config = ConfigLoader.from_args_and_json(arguments)
            require_folder(config.output.output_dir)
    except RatchetError as error:
        return _wrong(with_flags(str(error)))
    if (step := all_trained(config)) is not None:
        print(f"nothing is left: all of {config.data.dataset_path} was trained on by step {step}. Give other rows, or")
        print("leave --resume-from-checkpoint out to begin anew.")
        return EXIT_DONE
    from trainer.chain import train_file  # torch and transformers, which --help and a typing error can do without
    from trainer.core import TrainerEngine
    from trainer.processes import Processes

    terminal = Terminal(sys.stderr)
    status = TrainingStatusWriter(config.output.output_dir / STATUS)
    with stop_on(signal.SIGTERM, signal.SIGINT) as asked:
        engine = TrainerEngine(status, report=terminal.progress, should_stop=asked.is_set)
        result = train_file(engine, config, asked.is_set)
        terminal.end()
    if not result.success:
        return _failed(config, result)
    with redirect_stdout(sys.stdout if Processes.from_environment().is_first else None):
        return _done(config, result)


class Terminal:
    """Progress: one line that changes on a terminal, a line each elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begins, self._ends = ("\r\x1b[K", "") if stream.isatty() else ("", "\n")

    def progress(self, told: Mapping[str, Any]) -> None:
        loss, speed = told.get("loss"), told.get("tokens_per_s")
        line = f"step {told['step']}  {told['examples_done']:,}/{told['examples_total']:,} rows"
        line += f"  loss {loss:.4f}" if loss is not None else ""
        line += f"  {speed:,.0f} tokens/s" if speed else ""
        self._stream.write(f"{self._begins}{line}{self._ends}")
        self._stream.flush()

    def end(self) -> None:
        if not self._ends:
            self._stream.write("\n")


def with_flags(message: str) -> str:
    """The message with the flag beside each setting that has one."""
    for setting in FLAGS.values():
        flag = flag_of(setting)
        if flag is not None:
            message = message.replace(f"  {setting}: ", f"  {flag} ({setting}): ")
    return message


def all_trained(config: TrainerConfig) -> int | None:
    """The step at which the run to go on with had trained on all of the rows that are given; else None."""
    resume_from = config.output.resume_from
    return nothing_left(resume_from.parent, config.data.dataset_path) if resume_from is not None else None


def _done(config: TrainerConfig, result: TrainingResult) -> int:
    folder, steps = config.output.output_dir, config.hyperparams.max_steps
    print(f"step {result.global_step}, loss {result.final_loss:.4f}: {result.last_checkpoint_path}")
    if skipped := result.summary.get("rows_too_long"):
        named = result.summary["lines_too_long"]
        lines = ", ".join(map(str, named)) + (", …" if skipped > len(named) else "")
        print(f"left out, longer than --max-length {config.hyperparams.max_length}: {skipped:,} (line {lines})")
    if result.finished or result.global_step == steps:
        return EXIT_DONE
    print(f"stopped; --resume-from-checkpoint {folder} goes on.")
    return EXIT_STOPPED


def _failed(config: TrainerConfig, result: TrainingResult) -> int:
    kind = result.error_kind or ErrorKind.UNEXPECTED
    message = str(result.error_message)
    if kind in (ErrorKind.DATA, ErrorKind.TEMPLATE) and config.data.dataset_path.name not in message:
        message = f"{config.data.dataset_path}: {message}"
    print(f"trainer: {message}", *filter(None, [WAYS_OUT.get(kind)]), sep="\n", file=sys.stderr)
    return EXIT_WRONG if kind in WRONG else EXIT_FAILED


def _wrong(message: str) -> int:
    print(f"trainer: {message}", file=sys.stderr)
    return EXIT_WRONG


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Names of the prior system are told as lines of our own, each once."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", LegacySetting)
        try:
            yield
        finally:
            for warning in told:
                print(f"trainer: {warning.message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
