"""What was wrong with settings, in words: each key by its dotted name, an unknown one with the nearest known one."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from ratchet.settings.legacy import FIELDS, Gone


def names(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields, sections included."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from names(kind, f"{prefix}{name}.")


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """One line a mistake."""
    lines = []
    for mistake in error.errors():
        name = ".".join(map(str, mistake["loc"]))
        said = unknown(name, schema) if mistake["type"] == "extra_forbidden" else str(mistake["msg"])
        lines.append(f"  {name}: {said}")
    return "\n".join(lines)


def unknown(name: str, schema: type[BaseModel]) -> str:
    """Says that there is no such setting, and which one was probably meant."""
    prior = FIELDS.get(name)
    if isinstance(prior, Gone):
        return f"there is no such setting any more: {prior.because}"
    near = prior.new if prior is not None else nearest(name, schema)
    return "there is no such setting" + (f"; did you mean {near}?" if near else "")


def nearest(name: str, schema: type[BaseModel]) -> str | None:
    """The known name most like ``name``: the same field of another section, else the nearest in spelling."""
    known = list(names(schema))
    leaf = name.rpartition(".")[2]
    same = [other for other in known if "." in other and other.rpartition(".")[2] == leaf]
    if same:
        return same[0]
    if close := get_close_matches(name, known, n=1, cutoff=0.75):
        return close[0]
    leaves = {other.rpartition(".")[2]: other for other in reversed(known)}
    close = get_close_matches(leaf, list(leaves), n=1, cutoff=0.75)
    return leaves[close[0]] if close else None
