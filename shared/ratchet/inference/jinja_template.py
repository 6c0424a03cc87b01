"""Renders a chat template with jinja2 alone, as transformers does, but with the day as an argument.

Templates come with a model and are not trusted: they run in jinja's sandbox and see plain JSON data. transformers would
always tell a template today's date, so that a model is judged with another prompt than the one that it is served with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ratchet.errors import ChatTemplateError

if TYPE_CHECKING:
    import jinja2

Turn = dict[str, Any]
"""One turn as templates read it: role, content, and tool calls or the call that is answered."""


class JinjaTemplate:
    """A compiled chat template with its variables. Compiling raises ChatTemplateError for wrong syntax."""

    def __init__(self, text: str, variables: Mapping[str, Any], day: date, name: str):
        """``variables`` are the special tokens and whatever else the template asks for; ``name`` is for errors."""
        import jinja2  # not a dependency of every process that imports this module

        self._name = name
        self._variables = {"strftime_now": day.strftime, **variables}
        try:
            self._template = _compiled(text)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template of {name} cannot be read: {error}") from error
        # What a template's own code raises on a chat that its author did not think of.
        self._refusals = (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)

    def render(self, turns: Sequence[Turn], tools: Sequence[Turn] | None, *, speak: bool) -> str:
        """The chat as text; with ``speak``, up to where the model starts to answer.

        Raises ChatTemplateError with the template's own words if it refuses the chat.
        """
        try:
            return self._template.render(
                {**self._variables, "messages": list(turns), "tools": tools, "add_generation_prompt": speak}
            )
        except self._refusals as error:
            roles = ", ".join(str(turn["role"]) for turn in turns)
            raise ChatTemplateError(f"the chat template of {self._name} refuses turns of {roles}: {error}") from error


@lru_cache(maxsize=32)
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    """The environment for which chat templates are written: that of transformers' ``apply_chat_template``."""
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class GenerationBlocks(Extension):
        """``{% generation %}`` marks an answer for training; answers are found otherwise here (see chat_template)."""

        tags = {"generation"}  # noqa: RUF012 - as jinja declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class PlainNamespace(Namespace):
        """A namespace that stores no attribute of Python's own, as a way out of the sandbox."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a chat template may not set {name!r}")
            super().__setitem__(name, value)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update({"raise_exception": refuse, "namespace": PlainNamespace})
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter would escape ``<`` and ``&``, as for a web page."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
