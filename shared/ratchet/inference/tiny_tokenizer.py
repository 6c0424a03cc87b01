"""The tokenizer of the tiny model: 256 bytes, 76 word pieces, 5 special tokens, built from constants alone.

Digits and letters stay single tokens, so that arithmetic and string tasks are learnt digit by digit; only
words after a space are merged. Any UTF-8 text round-trips, byte by byte where need be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 337
PAD = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
_TURN_OPENERS = ("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_start|>system\n")

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}"
    "{%- else -%}{{- message['content'] + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_WORDS = """the of and to in is answer number with for find letters digits what this that are result all each
write from be by"""
_SPACE = "Ġ"


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of bytes, in byte order (the GPT-2 table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]


def word_merges() -> list[tuple[str, str]]:
    """The merges that spell each word after a space, a prefix at a time, without repeats."""
    merges: dict[tuple[str, str], None] = {}
    for word in _WORDS.split():
        piece = _SPACE
        for letter in word:
            merges[(piece, letter)] = None
            piece += letter
    return list(merges)


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template; the same on every machine."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = word_merges()
    pieces = [*byte_alphabet(), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (PAD, END_OF_TURN, *_TURN_OPENERS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TURN, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )
