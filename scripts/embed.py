"""Write the generated parts of the documents: the text between ``<!-- generated: NAME -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from ratchet.cli import systems
from ratchet.cli.init import toml
from ratchet.cli.main import COMMANDS, app
from ratchet.data import adapters
from ratchet.profiles.regime3.grammar import OPERATORS
from ratchet.settings import Settings
from ratchet.settings.legacy import FIELDS, Fate, Gone
from ratchet.systems import registry
from ratchet.views.glossary import MEASURES, TERMS
from trainer.config import FLAGS
from trainer.monitoring import STATUS_FIELDS

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """The Markdown files that may hold generated parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def render(text: str) -> str:
    """The text with every generated part as it should be. Raises KeyError for an unknown name."""
    return BLOCK.sub(lambda found: found[1] + PARTS[found["name"]]() + found[3], text)


def wiring_table() -> str:
    return systems.table(registry.systems().values())


def wiring_graph() -> str:
    return f"```mermaid\n{systems.graph(registry.systems().values())}```\n"


def commands() -> str:
    """One line a command: what it does, and for a group its commands."""
    root = typer.main.get_command(app)
    lines = ["| command | does |", "|---|---|"]
    for name, command in COMMANDS.items():
        inner = getattr(root.commands[name], "commands", {})  # type: ignore[attr-defined]
        listed = f" ({', '.join(f'`{each}`' for each in sorted(inner))})" if inner else ""
        lines.append(f"| `ratchet {name}` | {command.summary}{listed} |")
    return "\n".join(lines) + "\n"


def terms() -> str:
    """The terms of the glossary."""
    return _meanings(TERMS)


def measures() -> str:
    """Further words of the tables and pages."""
    return _meanings(MEASURES)


def _meanings(words: Mapping[str, str]) -> str:
    return "\n".join(["| term | meaning |", "|---|---|", *(f"| **{w}** | {m} |" for w, m in words.items())]) + "\n"


def operators() -> str:
    """A table of the prefix operators."""
    rows = [f"| `{op.name}` | {op.arity_text} | {op.argument_kinds} | {op.meaning} |" for op in OPERATORS.values()]
    return "\n".join(["| operator | arguments | of kind | value |", "|---|---|---|---|", *rows]) + "\n"


def settings() -> str:
    """A table a section, with every field, its default and its meaning."""
    parts = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts.append(f"### {name}\n\n{_first_paragraph(section)}\n\n{_section(name, section)}")
    return "\n".join(parts)


def legacy() -> str:
    """The settings of the prior system, each with its present name or the reason why it was dropped."""
    return _fates(FIELDS)


def status_fields() -> str:
    """The fields of the status of training."""
    lines = ["| field | what |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in STATUS_FIELDS.items()]
    return "\n".join(lines) + "\n"


def _fates(fates: Mapping[str, Fate]) -> str:
    lines = ["| there | here |", "|---|---|"]
    for name, fate in fates.items():
        if isinstance(fate, Gone):
            said = f"gone: {fate.because}"
        elif fate.new == name:
            said = f"the same{f' ({fate.note})' if fate.note else ''}"
        else:
            said = f"`{fate.new}`{f' ({fate.note})' if fate.note else ''}"
        lines.append(f"| `{name}` | {said} |")
    return "\n".join(lines) + "\n"


def trainer_flags() -> str:
    """The flags of `trainer`, each with the setting that it sets."""
    lines = ["| flag | sets |", "|---|---|"]
    for flag, setting in FLAGS.items():
        shown = "`--fp16`, `--bf16`, `--fp32`" if flag == "precision" else f"`--{flag.replace('_', '-')}`"
        lines.append(f"| {shown} | `{setting}` |")
    return "\n".join(lines) + "\n"


def shapes() -> str:
    """A table of the row layouts: one key of each group is needed."""
    named = {adapters.QUESTIONS: "a question", adapters.ANSWERS: "an answer"}
    lines = ["| shape | needs | may have |", "|---|---|---|"]
    for adapter in adapters.ADAPTERS:
        needs = "; ".join(named.get(group) or _either(group) for group in adapter.required)
        lines.append(f"| {adapter.shape} | {needs} | {', '.join(f'`{key}`' for key in adapter.optional)} |")
    lines += ["", *(f"- {name}: {_either(group)}" for group, name in named.items())]
    return "\n".join(lines) + "\n"


def _either(keys: tuple[str, ...]) -> str:
    return " or ".join(f"`{key}`" for key in keys)


def _first_paragraph(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").strip().split("\n\n")[0].split())


def _section(name: str, section: type[BaseModel]) -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for field_name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        known = default is not None and default is not PydanticUndefined and field.default_factory is None
        shown = f"`{toml(default)}`" if known else ""
        lines.append(f"| `{name}.{field_name}` | {shown} | {(field.description or '').replace('|', '/')} |")
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[], str]] = {
    "terms": terms,
    "measures": measures,
    "commands": commands,
    "legacy": legacy,
    "operators": operators,
    "settings": settings,
    "shapes": shapes,
    "status-fields": status_fields,
    "trainer-flags": trainer_flags,
    "wiring-graph": wiring_graph,
    "wiring-table": wiring_table,
}


if __name__ == "__main__":
    for document in documents():
        before = document.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            document.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{document.relative_to(ROOT)}\n")
