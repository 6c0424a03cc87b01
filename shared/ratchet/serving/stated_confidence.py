"""Whether a calibration says something about a client's question, and what.

A calibration holds for questions of the kinds that it was fitted on, answered greedily. The kind of a question is known
where a registered task family can parse it, or where the client names the task itself. For all others nothing is
stated: a number without a basis is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable

from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.serving.answer_body import Certain
from ratchet.tasks import registry


def stated_by(
    certainty: Certainty | None, chat: Chat, task: str | None, decoding: Decoding
) -> Callable[[Generation], Certain]:
    """A function that returns what is stated of an answer to this chat; ``task`` is the task that the client names."""
    if certainty is None or decoding.temperature > 0 or not _covers(certainty, chat, task):
        return lambda _generation: Certain()

    def state(generation: Generation) -> Certain:
        confidence = certainty.confidence(generation.token_logprobs)
        return Certain(confidence, certainty.should_abstain(confidence))

    return state


def _covers(certainty: Certainty, chat: Chat, task: str | None) -> bool:
    if task is not None:
        return certainty.covers(task)
    is_bare_question = len(chat) == 1 and chat[0].role == "user"  # as the items of the families are
    return is_bare_question and any(
        _is_of(family, chat[0].content) for family in certainty.items if certainty.covers(family)
    )


def _is_of(name: str, question: str) -> bool:
    if ":" in name:
        return False  # a data set of a library such as reasoning-gym, which cannot parse its own questions
    family = registry.find(name)
    return family is not None and family.parse(question) is not None
