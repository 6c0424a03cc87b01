"""The system turn that a profile may put before a conversation."""

from __future__ import annotations

from datetime import date

from ratchet.data.example import Example, Message


def on_day(system_prompt: str, day: date | str) -> str:
    """The text with ``{date}`` replaced by the day as YYYY-MM-DD."""
    return system_prompt.replace("{date}", str(day))


def with_system_turn(example: Example, system_prompt: str) -> Example:
    """The example with the system turn in front, unless it has its own or the text is empty."""
    if not system_prompt or example.messages[0].role == "system":
        return example
    turn = Message(role="system", content=system_prompt)
    return example.model_copy(update={"messages": (turn, *example.messages)})
