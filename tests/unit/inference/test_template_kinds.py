"""Chat templates and tokenizers as models have them: each kind trains exactly the answer, after the served prompt."""

from __future__ import annotations

import copy
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.data.example import Example, Message
from ratchet.errors import ChatTemplateError
from ratchet.inference.chat_codec import ChatCodec
from ratchet.inference.chat_template import DAY, ChatTemplate, Rendered, chat_template
from ratchet.inference.generator import Decoding
from ratchet.inference.jinja_template import JinjaTemplate
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.tiny import CHAT_TEMPLATE, build_tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TOKENIZER = build_tiny_tokenizer()
QUESTION, ANSWER = Message(role="user", content="2+2?"), Message(role="assistant", content="yes 4")
SYSTEM = Message(role="system", content="be brief")
CALL = {"id": "a1", "type": "function", "function": {"name": "rain", "arguments": '{"city": "Bergen"}'}}
TOOLS = [{"type": "function", "function": {"name": "rain", "description": "mm of rain", "parameters": {}}}]

LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}{% else %}"
    "{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHAT_TEMPLATE
)
DROPS_SYSTEM = (
    "{% for m in messages if m['role'] != 'system' %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_3 = (
    "{% for m in messages %}{% set content = m['content'] %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') if '</think>' in content else '' %}"
    "{{ '<think>\n' + thought + '\n</think>\n\n' + content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ content.split('</think>')[-1].lstrip('\n') }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
HERMES = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}"
    "{{ '<tool_call>' + call['function'] | tojson + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DATED = "{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATE
TRIMS = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")


def tiny(template: str, **variables: Any) -> ChatTemplate:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = template
    return chat_template(tokenizer, variables)


def trained(rendered: Rendered, tokenizer: Any = TOKENIZER) -> str:
    return str(tokenizer.decode([token for token, mark in zip(rendered.ids, rendered.trained, strict=True) if mark]))


def ask(question: str, answer: str) -> tuple[Message, ...]:
    return Example.ask(question, answer).messages


@pytest.mark.parametrize("template", [LLAMA_2, ZEPHYR, DROPS_SYSTEM, QWEN_3, HERMES, CHAT_TEMPLATE])
def test_templates_render_as_with_transformers(template: str) -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = template
    turns = [{"role": turn.role, "content": turn.content} for turn in (QUESTION, ANSWER, QUESTION)]
    ours = JinjaTemplate(template, tokenizer.special_tokens_map, date.today(), "")
    for speak in (True, False):
        theirs = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=speak, tools=TOOLS)
        assert ours.render(turns, TOOLS, speak=speak) == theirs


@pytest.mark.parametrize("template", [GEMMA, DROPS_SYSTEM])
def test_a_system_turn_without_a_place_is_put_before_the_question_on_every_route(template: str) -> None:
    own = tiny(template)
    (served,) = own.prompt_ids([[SYSTEM, QUESTION]])
    rendered = own.training_ids([SYSTEM, QUESTION, ANSWER])
    assert "user\nbe brief\n\n2+2?<|im_end|>" in TOKENIZER.decode(served)
    assert rendered.ids[: len(served)] == served
    assert own.prompt_ids([[Message(role="system", content=""), QUESTION]]) == own.prompt_ids([[QUESTION]])
    assert "system\nbe brief<" in tiny(CHAT_TEMPLATE).prompt_text([SYSTEM, QUESTION])


@pytest.mark.parametrize(
    "spelt", ["<|im_end|>", "<|im_end|>\n<|im_start|>user\nb", "<|im_start|>assistant\n<|endoftext|>"]
)
def test_a_control_token_in_a_text_is_text_on_every_route(spelt: str) -> None:
    own, plain = chat_template(TOKENIZER), chat_template(TOKENIZER).prompt_ids([[QUESTION]])[0]
    (served,) = own.prompt_ids([[Message(role="user", content=spelt)]])
    control = set(TOKENIZER.all_special_ids) | set(TOKENIZER.added_tokens_decoder)
    assert [token for token in served if token in control] == [token for token in plain if token in control]
    assert TOKENIZER.decode(served) == own.prompt_text([Message(role="user", content=spelt)])
    rendered = own.training_ids(ask(spelt, spelt))
    assert rendered.ids[: len(served)] == served
    assert trained(rendered) == spelt + "<|im_end|>"
    (scored,) = own.reply_ids([spelt])
    assert list(scored) == rendered.ids[len(served) :]


def test_a_control_token_in_tools_and_calls_is_text() -> None:
    own, spelt = tiny(HERMES), "<|im_end|>"
    tools = [{"type": "function", "function": {"name": spelt, "parameters": {"properties": {spelt: {}}}}}]
    call = {"id": "1", "type": "function", "function": {"name": spelt, "arguments": '{"<|im_end|>": "<|im_end|>"}'}}
    turns = [QUESTION, Message(role="assistant", content="", tool_calls=(call,))]
    rendered = own.training_ids(turns, tools)
    assert rendered.ids.count(TOKENIZER.convert_tokens_to_ids(spelt)) == 3, "the ends of tools and turns"
    assert trained(rendered).count(spelt) == 4, "a name, a key, a value, and the end"


PARTS = st.sampled_from(
    ["<|im_end|>", "<|im_start|>user\n", "<|endoftext|>", "<|im_", "end|>", "<", "|", "\ufdd0", "\n", "é"]
)


@given(st.lists(PARTS | st.text(st.characters(codec="utf-8"), max_size=5), max_size=8).map("".join))
def test_whatever_a_text_spells_it_is_trained_as_it_is_and_forges_nothing(text: str) -> None:
    own, control = chat_template(TOKENIZER), set(TOKENIZER.added_tokens_decoder)
    (usual,), (served,) = own.prompt_ids([[QUESTION]]), own.prompt_ids([[Message(role="user", content=text)]])
    assert [token for token in served if token in control] == [token for token in usual if token in control]
    rendered = own.training_ids(ask(text, text))
    assert rendered.ids == [*served, *own.reply_ids([text])[0]]
    assert trained(rendered) == text + "<|im_end|>"


def test_the_marker_survives_texts_that_hold_it_already() -> None:
    text = "\ufdd0\ufdd0<|im_end|>\ufdd0"
    assert trained(chat_template(TOKENIZER).training_ids(ask("a", text))) == text + "<|im_end|>"


def test_a_row_that_cannot_be_encoded_as_text_is_refused_alone() -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["§"]})  # one character cannot be broken up
    good, bad, last = chat_template(tokenizer).training_rows([ask("a", "b"), ask("a", "§ 1"), ask("c", "d")])
    assert isinstance(bad, ChatTemplateError)
    assert "cannot encode '§' as ordinary text" in str(bad)
    assert good == chat_template(tokenizer).training_ids(ask("a", "b"))
    assert last == chat_template(tokenizer).training_ids(ask("c", "d"))


def test_an_empty_think_block_of_the_template_is_context_and_a_rows_own_is_trained() -> None:
    own = tiny(QWEN_3)
    assert own.opens_with_thought
    bare = own.training_ids(ask("2+2?", "4"))
    assert trained(bare) == "4<|im_end|>"
    assert "<think>\n\n</think>\n\n4" in TOKENIZER.decode(bare.ids)
    assert (
        trained(own.training_ids(ask("2+2?", "<think>\neasy\n</think>\n\n4")))
        == "<think>\neasy\n</think>\n\n4<|im_end|>"
    )
    (served,) = own.prompt_ids([[QUESTION]])
    assert bare.ids == [*served, *own.reply_ids(["4"])[0]], "what is scored is what is trained"


def test_thinking_is_switched_off_for_every_route() -> None:
    own = tiny(QWEN_3, enable_thinking=False)
    (served,) = own.prompt_ids([[QUESTION]])
    rendered = own.training_ids(ask("2+2?", "4"))
    assert TOKENIZER.decode(served).endswith("assistant\n<think>\n\n</think>\n\n")
    assert rendered.ids == [*served, *own.reply_ids(["4"])[0]]
    assert trained(rendered) == "4<|im_end|>"
    assert not own.opens_with_thought
    own_block = ask("2+2?", "<think>\n\n</think>\n\n4")
    assert own.training_ids(own_block) == rendered
    assert own.reply_ids([own_block[1].content]) == own.reply_ids(["4"])


@pytest.mark.parametrize("answer", ["    return 1", "a\n", " \t1", "<think>easy</think>4"])
@pytest.mark.parametrize("template", [TRIMS, QWEN_3])
def test_the_last_answer_is_trained_exactly_also_where_the_template_strips_it(template: str, answer: str) -> None:
    own = tiny(template)
    rendered = own.training_ids(ask("2+2?", answer))
    assert trained(rendered) == answer + "<|im_end|>"
    if not own.opens_with_thought:
        assert rendered.ids == [*own.prompt_ids([[QUESTION]])[0], *own.reply_ids([answer])[0]]


def test_an_earlier_answer_whose_indentation_is_lost_is_context() -> None:
    own = tiny(TRIMS)
    talk = (*ask("a", "  b"), *ask("c", "d\n"), *ask("e", "f"))
    assert trained(own.training_ids(talk)) == "d<|im_end|>f<|im_end|>"


def test_a_template_that_changes_an_answer_refuses_the_row() -> None:
    own = tiny(
        CHAT_TEMPLATE.replace(
            "message['content'] + '<|im_end|>'", "message['content'] | replace('x', 'y') + '<|im_end|>'"
        )
    )
    good, bad = own.training_rows([ask("a", "b"), ask("a", "axe")])
    assert isinstance(good, Rendered)
    assert isinstance(bad, ChatTemplateError)
    assert "alters the last answer" in str(bad)


def test_the_date_of_a_template_is_that_of_its_folder() -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = DATED
    assert chat_template(tokenizer).prompt_text([QUESTION]).startswith("26 Jul 2024<")
    dated = copy.deepcopy(tokenizer)
    dated.init_kwargs[DAY] = "2026-11-30"
    assert chat_template(dated).prompt_text([QUESTION]).startswith("30 Nov 2026<")


def test_tools_calls_and_their_answers_are_rendered_and_calls_are_trained() -> None:
    own = tiny(HERMES)
    called = Message(role="assistant", content="", tool_calls=(CALL,))
    rows = [QUESTION, called, Message(role="tool", content="9 mm", tool_call_id="a1"), ANSWER]
    rendered = own.training_ids(rows, TOOLS)
    assert own.takes_tools
    assert trained(rendered) == (
        '<tool_call>{"name": "rain", "arguments": {"city": "Bergen"}}</tool_call><|im_end|>yes 4<|im_end|>'
    )
    (served,) = own.prompt_ids([rows[:3]], [TOOLS])
    assert rendered.ids[: len(served)] == served
    assert "mm of rain" in TOKENIZER.decode(served)


@pytest.mark.parametrize(
    "rows", [[QUESTION, Message(role="assistant", content="", tool_calls=(CALL,))], [QUESTION, ANSWER]]
)
def test_a_row_with_tools_is_refused_where_the_template_has_no_place_for_them(rows: list[Message]) -> None:
    (refused,) = chat_template(TOKENIZER).training_rows([rows], [TOOLS])
    assert isinstance(refused, ChatTemplateError)
    assert "has no place for tools" in str(refused)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, LLAMA_2])
def test_there_is_one_begin_token_on_every_route(template: str) -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = template
    own = chat_template(tokenizer)
    for ids in (own.prompt_ids([[QUESTION]])[0], own.training_ids([QUESTION, ANSWER]).ids):
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_begun_answer_is_continued() -> None:
    own = chat_template(TOKENIZER)
    begun = Message(role="assistant", content="4 is <|im_end|>")
    (served,) = own.prompt_ids([[QUESTION]])
    (continued,) = own.prompt_ids([[QUESTION, begun]], continue_last=True)
    assert continued[: len(served)] == served
    assert TOKENIZER.decode(continued[len(served) :]) == "4 is <|im_end|>"
    assert own.prompt_ids([[QUESTION]], continue_last=True) == [served]
    codec = ChatCodec(TOKENIZER, PromptFormat(), 512, "")
    assert list(codec.prompt((QUESTION, begun), Decoding(), continue_last=True).token_ids) == continued


def spaced_tokenizer(template: str, *, as_llama: bool) -> Any:
    """A tokenizer that puts a space before every text, in either of the two ways in which files state that."""
    letters = sorted(set("▁\n[]/|<>?+" + "INSTabcdefghijklmnopqrstuvwxyz0123456789:.,"))
    merges = [("▁", "y"), ("▁y", "e"), ("▁ye", "s"), ("y", "e"), ("ye", "s"), ("▁", "4"), ("▁", "[")]
    pieces = ["<unk>", "<s>", "</s>", *letters, *dict.fromkeys(a + b for a, b in merges)]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, unk_token="<unk>")
    )
    if as_llama:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


@pytest.mark.parametrize("as_llama", [True, False])
@pytest.mark.parametrize("template", [LLAMA_2, ZEPHYR])
def test_pieces_of_a_spaced_tokenizer_have_the_tokens_of_the_whole_text(template: str, as_llama: bool) -> None:
    tokenizer = spaced_tokenizer(template, as_llama=as_llama)
    own = chat_template(tokenizer)
    own.require_trainable()
    talk = [QUESTION, ANSWER, QUESTION, Message(role="assistant", content="yes")]
    text = own.prompt_text(talk).removesuffix("<|assistant|>\n").removesuffix("\n")
    rendered = own.training_ids(talk)
    assert rendered.ids == tokenizer(text, add_special_tokens=False).input_ids
    (served,) = own.prompt_ids([talk[:3]])
    assert rendered.ids == [*served, *own.reply_ids(["yes"])[0]]
    assert all(rendered.trained[len(served) :])


@pytest.mark.parametrize("as_llama", [True, False])
def test_a_control_token_is_text_for_a_spaced_tokenizer_or_the_row_is_refused(as_llama: bool) -> None:
    tokenizer = spaced_tokenizer(ZEPHYR, as_llama=as_llama)
    rendered = chat_template(tokenizer).training_ids(ask("a</s>b", "c</s>"))
    assert rendered.ids.count(tokenizer.eos_token_id) == 2
    assert trained(rendered, tokenizer).replace(" ", "") == "c</s></s>"


def test_a_spaced_tokenizer_that_cuts_an_answer_otherwise_is_refused() -> None:
    tokenizer = spaced_tokenizer(LLAMA_2.replace("' [/INST]'", "' [/INST] '").replace("' ' + m", "m"), as_llama=True)
    with pytest.raises(ChatTemplateError, match="otherwise where an answer begins than in the whole text"):
        chat_template(tokenizer).require_trainable()
