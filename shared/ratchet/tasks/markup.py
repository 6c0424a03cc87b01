"""Brings the text of an answer into plain characters, and removes the LaTeX, Markdown, HTML and currencies in it.

It removes only what does not change the number that it surrounds.
"""

from __future__ import annotations

import re
import unicodedata

_MINUS = "\u02d7\u2010\u2011\u2012\u2013\u2212\u2796\ufe63\uff0d"
_PLUS = "\u2795\ufe62\uff0b"
_CHARACTERS = {
    **dict.fromkeys(_MINUS, "-"),
    **dict.fromkeys(_PLUS, "+"),
    **dict.fromkeys("\u00ad\u200b\u200e\u200f\u2060\ufeff", ""),  # invisible
    **dict.fromkeys("\u2044\u2215\uff0f", "/"),
    **dict.fromkeys("\u2217\uff0a", "*"),
    **dict.fromkeys("⇒⟹⟶", "→"),
    "…": "...",
    "∴": " ",
    "\uff0c": ",",
    "\uff0e": ".",
    "\uff05": "%",
    "\uff1d": "=",
}
_RAISED = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_VULGAR = re.compile("([0-9]?)([¼½¾⅐-⅞↉])")

_LATEX = {
    **dict.fromkeys(("left", "right", "big", "bigl", "bigr", "Big", "displaystyle", "!", "(", ")", "[", "]"), ""),
    **dict.fromkeys(("text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit", "mbox", "bf", "rm"), ""),
    **dict.fromkeys((",", ";", ":", " ", "quad", "qquad", "therefore"), " "),
    **dict.fromkeys(("to", "rightarrow", "Rightarrow", "implies", "Longrightarrow"), "→"),
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac"), "\\frac"),
    **dict.fromkeys(("boxed", "fbox"), "\\boxed"),
    **dict.fromkeys(("ne", "neq"), "≠"),
    **dict.fromkeys(("approx", "sim", "simeq"), "≈"),
    **dict.fromkeys(("circ", "degree"), "°"),
    **dict.fromkeys(("end", "\\"), "\n"),
    **{sign: sign for sign in "%${}_#&"},
    "times": "×",
    "cdot": "·",
}
"""Replacements of LaTeX commands. Others are kept, and no number next to them is read."""
_COMMAND = re.compile(r"\\+([A-Za-z]+|.)")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\[,!])(?=[0-9]{3}(?![0-9]))")
_ARROWS = {"=>": "→", "==>": "→", "->": "→", "-->": "→", "<=": "≤", ">=": "≥", "!=": "≠", "==": "="}
_ARROW = re.compile(r"={1,2}>|-{1,2}>|<=|>=|!=|==")
_TAG = re.compile(r"<[|/]?[A-Za-z][\w|-]{0,40}/?>")
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
"""A calculator annotation of GSM8K, as in ``3*4=<<3*4=12>>12``."""
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*\n]{1,400}?)(?<!\s)\1(?![\w*])")
_CURRENCY = re.compile(
    r"(?:\b(?:US|AU?|CA?|HK|NZ|NT|R|S))?\$"
    r"|\b(?:Rs\.?|USD|EUR|GBP|JPY|CNY|INR|CAD|AUD|CHF)[ ]?(?=[-+({\[$.0-9])"
)
_POWER_OF_UNIT = re.compile(
    r"([0-9])[ ]{0,2}\{?[ ]{0,2}(?:[mckd]?m|ft|in|yd|mi|s|units?|inches|feet|met(?:er|re)s?)\}?"
    r"\^?\{?[23]\}?(?![\w^])"
)


def plain_characters(text: str) -> str:
    """The text with ASCII digits, signs and spaces, ``$`` for currency signs, ``1/2`` for ``½``, ``^{3}`` for ``³``."""
    if not text.isascii():
        text = _VULGAR.sub(_vulgar, text)
        text = _RAISED.sub(lambda found: f"^{{{found[0].translate(_LOWERED)}}}", text)
        text = text.translate({ord(character): _ascii(character) for character in set(text)})
    return text.replace("\t", " ").replace("\r", "\n")


def _vulgar(found: re.Match[str]) -> str:
    """``½`` as ``1/2``, and ``2½`` as the mixed number ``2 1/2``."""
    fraction = unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
    return f"{found[1]} {fraction}" if found[1] else fraction


def _ascii(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return {"Zs": " ", "Sc": "$"}.get(unicodedata.category(character), character)


def strip_markup(text: str) -> str:
    """The text without LaTeX, tags, emphasis, currencies and powers of units, unless they change a number."""
    text = _COMMAND.sub(lambda found: _LATEX.get(found[1], "\\" + found[1]), _THOUSANDS.sub(",", text))
    text = _TAG.sub(" ", _CALCULATION.sub("", text).replace("</think>", "\n"))
    text = _ARROW.sub(lambda found: _ARROWS[found[0]], text.replace("~", " "))
    text = _EMPHASIS.sub(r"\2", text)
    text = _CURRENCY.sub("", re.sub(r"(?<=[0-9])\$", " ", text))
    return _POWER_OF_UNIT.sub(r"\1 ", re.sub(r"\^\{?°\}?", "°", text))
