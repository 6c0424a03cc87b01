"""A profile's own texts as single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def add_tokens(tokenizer: Any, texts: Sequence[str], room: int) -> bool:
    """Make each text one token of a fast tokenizer, in rows that the embedding has and the vocabulary does not use.

    ``room`` is the number of rows. The tokens are not special: an answer's text keeps them. Returns False, and
    changes nothing, where the rows do not suffice: then the texts stay spelled in pieces.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    missing = [text for text in texts if text not in known]
    if len(tokenizer) + len(missing) > room:
        return False
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in missing])
    return True
