"""The command line of `trainer`: flags, what each sets, and help that teaches. Needs no torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ratchet.settings import Settings

from trainer.config import FLAGS

EXIT_DONE, EXIT_FAILED, EXIT_WRONG, EXIT_STOPPED = 0, 1, 2, 3
PRECISIONS = ("fp16", "bf16", "fp32")

HEAD = """\
Train a language model on a file, once, from the command line. (`ratchet run` is the loop that does it around the
clock, and only ever serves what is proved better.)

A file has one example a line, as {"question": "2+3=", "answer": "5"} or {"messages": [{"role": "user", "content": …},
{"role": "assistant", "content": …}]}; the other shapes are in docs/systems.md. The model is a folder or a hub name;
`tiny` is built in and learns small sums on a CPU in seconds.
"""
TAIL = f"""\
examples:
  trainer --dataset sums.jsonl                                    the built-in model, into run/runs/sums/final_model
  trainer --dataset rows.jsonl --model ./Qwen3-0.6B --learning-rate 2e-5 --batch-size 4 --bf16
  trainer --dataset rows.jsonl --max-steps 500 --save-steps 100   a checkpoint-STEP every 100 steps
  trainer --dataset rows.jsonl --resume-from-checkpoint run/runs/rows    go on exactly where it stopped
  trainer --config config.json --dataset rows.jsonl               the prior system's configuration
  torchrun --nproc-per-node 2 -m trainer --dataset rows.jsonl     one process a GPU

A flag goes before the environment (RATCHET_HYPERPARAMS__BATCH_SIZE=4), that before the file (--config, else
ratchet.toml or config.json in this folder), that before the defaults. --set sets what has no flag;
docs/configuration.md has all settings.

Ctrl-C or SIGTERM ends the run after the step under way and saves it.

exit codes: {EXIT_DONE} done, {EXIT_FAILED} training failed, {EXIT_WRONG} a flag, a setting or a row is wrong, \
{EXIT_STOPPED} stopped early and saved
"""


class Parser(argparse.ArgumentParser):
    """Says which flag was probably meant."""

    def error(self, message: str) -> NoReturn:
        words = [word for word in sys.argv[1:] if f" {word.partition('=')[0]}" in f" {message}"]
        flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for word in words:
            if word.startswith("--") and (near := get_close_matches(word.partition("=")[0], flags, n=1)):
                message += f"; did you mean {near[0]}?"
        self.exit(EXIT_WRONG, f"trainer: {message}\n`trainer --help` lists all flags.\n")


def parser() -> argparse.ArgumentParser:
    """The parser, its help made of the settings' own descriptions."""
    made = Parser(
        "trainer",
        description=HEAD,
        epilog=TAIL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--config", metavar="FILE", help="settings file, TOML or JSON")
    for flag, setting in FLAGS.items():
        if flag == "precision":
            _add_precision(made)
            continue
        made.add_argument(f"--{flag.replace('_', '-')}", metavar=_metavar(flag), help=_help(setting))
    made.add_argument(
        "--set",
        metavar="SECTION.FIELD=VALUE",
        action="append",
        default=[],
        dest="assign",
        type=_assignment,
        help="any other setting, as model.lora_rank=16; may be given more than once",
    )
    return made


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ``assign`` is a mapping. Ends the process with its exit code for a wrong flag, or for --help."""
    given = parser().parse_args(argv)
    given.assign = dict(given.assign)
    return given


def flag_of(setting: str) -> str | None:
    """The flag that sets it."""
    named = {name: f"--{flag.replace('_', '-')}" for flag, name in FLAGS.items() if flag != "precision"}
    return named.get(setting)


def _add_precision(made: argparse.ArgumentParser) -> None:
    group = made.add_mutually_exclusive_group()
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
        raise argparse.ArgumentTypeError(f"write SECTION.FIELD=VALUE, as model.lora_rank=16, not {text!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()
