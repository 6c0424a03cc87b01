"""A Modelfile for Ollama, whose chat template is derived from the model's own by rendering placeholders.

Ollama reads safetensors folders of the architectures that it supports (Llama, Mistral, Gemma, Qwen and others). A chat
template that depends on more than the roles, or that writes ``{{`` itself, cannot be expressed; it is left out, and
Ollama then takes the one that it knows for the model, if any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Chat = list[dict[str, str]]
Render = Callable[[Chat], str]
"""Renders a chat with the generation prompt. Raises any error for a chat that the template refuses."""

_SYSTEM, _FIRST, _REPLY, _NEXT = "RATCHETSYSTEM", "RATCHETFIRST", "RATCHETREPLY", "RATCHETNEXT"


@dataclass(frozen=True)
class TurnTexts:
    """What a chat template writes around the turns. ``before_system`` is None for one that takes no system turn."""

    before_system: str | None
    after_system: str
    """Between a system turn and the user's first."""
    before_first: str
    """Before the user's first turn where there is no system turn."""
    before_reply: str
    after_reply: str
    """Between a reply and the user's next turn."""


def turn_texts(render: Render, begin: str = "") -> TurnTexts | None:
    """The texts around the turns; None for a template that they do not determine.

    ``begin`` is the text of the token that Ollama puts before every prompt itself.
    """
    user, reply, following = _turn("user", _FIRST), _turn("assistant", _REPLY), _turn("user", _NEXT)
    try:
        plain = _split(render([user, reply, following]), (_FIRST, _REPLY, _NEXT))
    except Exception:  # noqa: BLE001 - a template may raise anything
        return None
    if plain is None or plain[1] != plain[3]:
        return None
    before_system, after_system = None, ""
    try:
        system = _split(render([_turn("system", _SYSTEM), user]), (_SYSTEM, _FIRST))
    except Exception:  # noqa: BLE001
        system = None
    if system is not None and system[2] == plain[1]:
        before_system, after_system = system[0].removeprefix(begin), system[1]
    texts = TurnTexts(before_system, after_system, plain[0].removeprefix(begin), plain[1], plain[2])
    written = f"{before_system}{after_system}{texts.before_first}{texts.before_reply}{texts.after_reply}"
    return None if "{{" in written or '"""' in written else texts


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _split(text: str, marks: Sequence[str]) -> list[str] | None:
    """The texts before, between and after the marks; None unless each is there once, in this order."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        parts.append(before)
    return [*parts, text]


def go_template(texts: TurnTexts) -> str:
    """The same in Ollama's template language, which is that of Go. One line, since line breaks count."""
    system = ""
    if texts.before_system is not None:
        system = f'{{{{ if eq .Role "system" }}}}{texts.before_system}{{{{ .Content }}}}{{{{ end }}}}'
    user = (
        f'{{{{ if eq .Role "user" }}}}{{{{ if eq $last "system" }}}}{texts.after_system}'
        f'{{{{ else if eq $last "assistant" }}}}{texts.after_reply}'
        f"{{{{ else }}}}{texts.before_first}{{{{ end }}}}{{{{ .Content }}}}{texts.before_reply}{{{{ end }}}}"
    )
    reply = '{{ if eq .Role "assistant" }}{{ .Content }}{{ end }}'
    return f'{{{{ $last := "" }}}}{{{{ range .Messages }}}}{system}{user}{reply}{{{{ $last = .Role }}}}{{{{ end }}}}'


def modelfile(texts: TurnTexts | None, stops: Sequence[str]) -> str:
    """The text of the Modelfile, for the folder that it is in. ``stops`` are the texts of the end tokens."""
    lines = ["# ollama create NAME -f Modelfile, in this folder", "FROM ."]
    if texts is not None:
        lines.append(f'TEMPLATE """{go_template(texts)}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if '"' not in stop]
    return "\n".join([*lines, ""])
