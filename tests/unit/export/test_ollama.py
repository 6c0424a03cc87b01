"""The Modelfile's template writes what the model's chat template writes."""

from __future__ import annotations

import re

import jinja2
import pytest
from ratchet.export.ollama import Chat, go_template, modelfile, turn_texts

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "<|im_start|>assistant\n"
)
DEFAULT_SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
INST = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% elif m.role == 'assistant' %}"
    "{{ m.content }}</s>{% else %}{{ raise('no system') }}{% endif %}{% endfor %}"
)
LAST_TURN_DIFFERS = (
    "{% for m in messages %}{{ m.role + ':' + m.content }}{% if loop.last %} (answer now){% endif %}\n{% endfor %}"
)


def render(template: str, chat: Chat) -> str:
    environment = jinja2.Environment(keep_trailing_newline=True)
    return environment.from_string(template).render(messages=chat)


def go(template: str, chat: Chat) -> str:
    """What Go makes of a template of this form: ``if``, ``else if``, ``range`` and the variable ``$last``."""
    body = re.fullmatch(r'\{\{ \$last := "" \}\}\{\{ range \.Messages \}\}(.*)\{\{ end \}\}', template, re.DOTALL)
    assert body is not None
    jinja = re.sub(r'\{\{ if eq (\S+) "(\w+)" \}\}', r"{% if \1 == '\2' %}", body[1])
    jinja = re.sub(r'\{\{ else if eq (\S+) "(\w+)" \}\}', r"{% elif \1 == '\2' %}", jinja)
    jinja = jinja.replace("{{ else }}", "{% else %}").replace("{{ end }}", "{% endif %}")
    jinja = jinja.replace("{{ $last = .Role }}", "").replace("$last", "last")
    jinja = jinja.replace(".Role", "role").replace(".Content", "content")
    last, text = "", ""
    for turn in chat:
        environment = jinja2.Environment(keep_trailing_newline=True)
        text += environment.from_string(jinja).render(role=turn["role"], content=turn["content"], last=last)
        last = turn["role"]
    return text


def turns(*contents: str, system: str | None = None) -> Chat:
    roles = ("user", "assistant")
    chat = [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    return chat if system is None else [{"role": "system", "content": system}, *chat]


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, INST], ids=["chatml", "default system", "inst"])
@pytest.mark.parametrize("system", [None, "Short."])
@pytest.mark.parametrize("contents", [("2+2?",), ("2+2?", "4", "3+3?", "6", "1+1?")], ids=["one turn", "three"])
def test_the_same_prompt_is_written(template: str, system: str | None, contents: tuple[str, ...]) -> None:
    if template == INST and system is not None:
        return
    texts = turn_texts(lambda chat: render(template, chat), begin="<s>")
    assert texts is not None
    chat = turns(*contents, system=system)
    assert go(go_template(texts), chat) == render(template, chat).removeprefix("<s>")


def test_a_template_that_cannot_be_expressed_is_left_out() -> None:
    def broken(_chat: Chat) -> str:
        raise ValueError("no")

    for template in (LAST_TURN_DIFFERS, CHATML.replace("<|im_start|>", "{{ '{{' }}")):
        assert turn_texts(lambda chat, template=template: render(template, chat)) is None  # type: ignore[misc]
    assert turn_texts(broken) is None
    assert modelfile(None, ["<|im_end|>", '"']).splitlines()[1:] == ["FROM .", 'PARAMETER stop "<|im_end|>"']
