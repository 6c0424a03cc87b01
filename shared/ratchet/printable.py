"""Text from outside made safe to show: on a terminal, on a page, in a log, as a line of the ledger.

Answers of models, rows, names of files and replies of servers may hold escape sequences, which a terminal obeys, and
characters that turn the direction of the text around them. Both become visible escapes such as ``\\x1b``.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, separators of lines, those that turn the direction of text, and half characters."""
_UNSAFE_IN_TEXT = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def printable(name: object) -> str:
    """A name, or a sentence with a name in it, as one line; bytes of a path that are not UTF-8 become ``\\xff``."""
    return _UNSAFE.sub(_escape, str(name))


def printable_text(text: object) -> str:
    """A text with its line breaks and tabs."""
    return _UNSAFE_IN_TEXT.sub(_escape, str(text))


def printable_json(text: str) -> str:
    """A JSON text with the same characters escaped as JSON does; line breaks between its parts stay."""
    return _UNSAFE_IN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps such a byte
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape", "surrogatepass").decode()
