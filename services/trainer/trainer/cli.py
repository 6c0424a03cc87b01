"""The command `trainer`: trains a model on a file.

torch is imported only when training starts, so that ``--help`` and errors in flags respond at once.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from typing import Any, NoReturn, TextIO

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ratchet.errors import RatchetError
from ratchet.settings import Settings
from ratchet.settings.sources import LegacySetting
from ratchet.settings.training import TrainerConfig

from trainer.config import FLAGS, ConfigLoader
from trainer.monitoring import STATUS_FILE, TrainingStatusWriter
from trainer.run_folder import finished_step, require_folder, train_file
from trainer.segment import ErrorKind, TrainingResult

EXIT_DONE, EXIT_FAILED, EXIT_WRONG, EXIT_STOPPED = 0, 1, 2, 3
PRECISIONS = ("fp16", "bf16", "fp32")

HEAD = """\
Train a language model on a file, once, from the command line. (`ratchet run` is the continuous loop, which serves only
models that are proved better.)

A file has one example per line, such as {"question": "2+3=", "answer": "5"} or {"messages": [{"role": "user",
"content": …}, {"role": "assistant", "content": …}]}; README.md lists the other formats. The model is a folder or a hub
name; `tiny` is built in and learns small sums on a CPU in seconds.
"""
TAIL = f"""\
examples:
  trainer --dataset sums.jsonl                                    the built-in model, into run/runs/sums/final_model
  trainer --dataset rows.jsonl --model ./Qwen3-0.6B --learning-rate 2e-5 --batch-size 4 --bf16
  trainer --dataset rows.jsonl --max-steps 500 --save-steps 100   a checkpoint-STEP every 100 steps
  trainer --dataset rows.jsonl --resume-from-checkpoint run/runs/rows    continue exactly where a run stopped
  trainer --config config.json --dataset rows.jsonl               with the prior system's configuration
  torchrun --nproc-per-node 2 -m trainer --dataset rows.jsonl     one process per GPU

Flags override the environment (RATCHET_HYPERPARAMS__BATCH_SIZE=4), which overrides the file (--config, else
ratchet.toml or config.json in this folder), which overrides the defaults. --set is for settings without a flag;
docs/configuration.md lists all settings.

Ctrl-C or SIGTERM ends the run after the current step and saves it.

exit codes: {EXIT_DONE} done, {EXIT_FAILED} training failed, {EXIT_WRONG} a flag, a setting or a row is wrong, \
{EXIT_STOPPED} stopped early and saved
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors suggest the flag that was probably meant."""

    def error(self, message: str) -> NoReturn:
        words = [word for word in sys.argv[1:] if f" {word.partition('=')[0]}" in f" {message}"]
        flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for word in words:
            if word.startswith("--") and (near := get_close_matches(word.partition("=")[0], flags, n=1)):
                message += f"; did you mean {near[0]}?"
        self.exit(EXIT_WRONG, f"trainer: {message}\n`trainer --help` lists all flags.\n")


def parser() -> argparse.ArgumentParser:
    """The argument parser, with help texts from the descriptions of the settings."""
    flags = Parser(
        "trainer",
        description=HEAD,
        epilog=TAIL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument("--config", metavar="FILE", help="settings file, TOML or JSON")
    for flag, setting in FLAGS.items():
        if flag == "precision":
            _add_precision(flags)
            continue
        flags.add_argument(f"--{flag.replace('_', '-')}", metavar=_metavar(flag), help=_help(setting))
    flags.add_argument(
        "--set",
        metavar="SECTION.FIELD=VALUE",
        action="append",
        default=[],
        dest="assign",
        type=_assignment,
        help="any other setting, such as model.lora_rank=16; may be repeated",
    )
    return flags


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ``assign`` is a mapping. Exits the process for a wrong flag or --help."""
    given = parser().parse_args(argv)
    given.assign = dict(given.assign)
    return given


def flag_of(setting: str) -> str | None:
    """The flag for this setting; None if it has none."""
    named = {name: f"--{flag.replace('_', '-')}" for flag, name in FLAGS.items() if flag != "precision"}
    return named.get(setting)


def _add_precision(flags: argparse.ArgumentParser) -> None:
    group = flags.add_mutually_exclusive_group()
    for precision in PRECISIONS:
        group.add_argument(
            f"--{precision}",
            action="store_const",
            const=precision,
            dest="precision",
            help=f"train in {precision} (hyperparams.fp_precision)",
        )


def _metavar(flag: str) -> str:
    if flag in ("dataset", "model", "output_dir", "resume_from_checkpoint"):
        return "PATH"
    return "TEXT" if flag in ("profile", "system_prompt") else "N"


def _help(setting: str) -> str:
    field = _field(setting)
    default = field.get_default(call_default_factory=True)
    known = default is not None and default is not PydanticUndefined and default != ""
    text = f"{field.description} ({setting}{f', default {default}' if known else ''})"
    return text.replace("%", "%%")


def _field(setting: str) -> FieldInfo:
    section, _, field = setting.partition(".")
    kind: Any = Settings.model_fields[section].annotation
    found: FieldInfo = kind.model_fields[field]
    return found


def _assignment(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or "." not in name:
        raise argparse.ArgumentTypeError(f"write SECTION.FIELD=VALUE, such as model.lora_rank=16, not {text!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()


WRONG = {ErrorKind.SETTINGS, ErrorKind.DATA, ErrorKind.TEMPLATE, ErrorKind.MODEL, ErrorKind.RESUME}
"""Errors in the command line, the file or the model, which the user can fix."""

WAYS_OUT: Mapping[ErrorKind, str] = {
    ErrorKind.DATA: "Fix or remove that row; README.md lists the supported formats.",
    ErrorKind.TEMPLATE: "The tokenizer's chat template must keep question and answer, and end the answer with a token.",
    ErrorKind.MODEL: "--model takes a folder with config.json, a tokenizer and *.safetensors, a hub name, or `tiny`.",
    ErrorKind.RESUME: "Resume with the same rows and model, or leave --resume-from-checkpoint out to start a new run.",
    ErrorKind.DIVERGED: "Lower --learning-rate, or check the rows; nothing was overwritten.",
    ErrorKind.OUT_OF_MEMORY: "Lower --max-length, or train adapters (--set model.lora_rank=16).",
    ErrorKind.TRANSIENT: "Once that is fixed, --resume-from-checkpoint resumes from the last checkpoint.",
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
        print("leave --resume-from-checkpoint out to start a new run.")
        return EXIT_DONE
    from trainer.core import TrainerEngine  # with torch and transformers
    from trainer.launch import stop_on

    terminal = Terminal(sys.stderr)
    status = TrainingStatusWriter(config.output.output_dir / STATUS_FILE)
    with stop_on(signal.SIGTERM, signal.SIGINT) as stop:
        engine = TrainerEngine(status, report=terminal.progress, should_stop=stop.is_set)
        result = train_file(engine, config, stop.is_set)
        terminal.end()
    if not result.success:
        return _failed(config, result)
    with redirect_stdout(sys.stdout if engine.processes.is_main else None):
        return _done(config, result)


class Terminal:
    """Shows progress: on a terminal in one line that is rewritten, elsewhere in a line per report."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begins, self._ends = ("\r\x1b[K", "") if stream.isatty() else ("", "\n")

    def progress(self, fields: Mapping[str, Any]) -> None:
        loss, speed = fields.get("loss"), fields.get("tokens_per_s")
        line = f"step {fields['step']}  {fields['examples_done']:,}/{fields['examples_total']:,} rows"
        line += f"  epoch {fields['epoch']:.1f} of {fields['epochs']}" if fields["epochs"] > 1 else ""
        line += f"  loss {loss:.4f}" if loss is not None else ""
        line += f"  {speed:,.0f} tokens/s" if speed else ""
        self._stream.write(f"{self._begins}{line}{self._ends}")
        self._stream.flush()

    def end(self) -> None:
        if not self._ends:
            self._stream.write("\n")


def with_flags(message: str) -> str:
    """The message with the flag added to each setting that has one."""
    for setting in FLAGS.values():
        flag = flag_of(setting)
        if flag is not None:
            message = message.replace(f"  {setting}: ", f"  {flag} ({setting}): ")
    return message


def all_trained(config: TrainerConfig) -> int | None:
    """The step at which the run to resume finished all of the given rows; None if rows are left."""
    resume_from = config.output.resume_from
    return finished_step(resume_from.parent, config.data.dataset_path) if resume_from is not None else None


def _done(config: TrainerConfig, result: TrainingResult) -> int:
    folder, steps = config.output.output_dir, config.hyperparams.max_steps
    print(f"step {result.global_step}, loss {result.final_loss:.4f}: {result.last_checkpoint_path}")
    if skipped := result.summary.get("rows_too_long"):
        named = result.summary["lines_too_long"]
        lines = ", ".join(map(str, named)) + (", …" if skipped > len(named) else "")
        print(f"left out, longer than --max-length {config.hyperparams.max_length}: {skipped:,} (line {lines})")
    if refused := result.summary.get("rows_refused"):
        line, reason = next(iter(result.summary["lines_refused"].items()))
        print(f"left out, refused by the chat template: {refused:,} (first line {line}: {reason})")
    if result.finished or result.global_step == steps:
        return EXIT_DONE
    print(f"stopped; --resume-from-checkpoint {folder} resumes.")
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
    """Print each warning about a legacy setting name as one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LegacySetting)
        try:
            yield
        finally:
            for warning in caught:
                print(f"trainer: {warning.message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
