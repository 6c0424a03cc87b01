"""A profile's own texts as single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ratchet.inference.chat import Tokenizer
from tokenizers import AddedToken


@torch.no_grad()
def add_tokens(model: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Make each text one token, in rows that the embedding has and the vocabulary does not use.

    A new token starts as the mean of the pieces that it was spelled with. It is not special: an answer's text keeps
    it. Returns False, and changes nothing, where the rows do not suffice or do not learn: then the texts stay spelled
    in pieces. A second call changes nothing.
    """
    pieces = {text: tokenizer.encode(text, add_special_tokens=False) for text in texts}
    missing = [text for text in texts if len(pieces[text]) > 1]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    first = len(tokenizer)
    room = embedding.num_embeddings - first if embedding.weight.requires_grad else 0
    if len(missing) > room:
        return False
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in missing])
    for weight in {id(layer.weight): layer.weight for layer in (embedding, head)}.values():
        for row, text in enumerate(missing, first):
            weight[row] = weight[pieces[text]].mean(0)
    return True
