"""Rolling a checkpoint out to the inference server: load it next to the champion, run the canary, switch, and watch it.

If the champion cannot be served, an earlier champion with intact files is served as a fallback. The champion stays
desired and is tried again at every reconcile, so it is served again as soon as its files are restored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ratchet.data.example import Example
from ratchet.errors import ArtifactError, ClaimLost, ServingError, UnusableCheckpoint
from ratchet.evaluation.load_evaluation import load_if_intact, load_suite
from ratchet.evaluation.record import Evaluation
from ratchet.failpoint import failpoint
from ratchet.inference.generator import Decoding
from ratchet.inference.prompt_format import PromptFormat
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import earlier_champions, note_canary, note_fallback
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import BlockRow, CheckpointRow
from ratchet.profiles.profile import get_profile, with_system_turn
from ratchet.serving.protocol import InferenceServer, Traffic
from ratchet.settings import Settings
from ratchet.systems import NotReady, Work
from ratchet.systems.evaluated_checkpoints import request_again
from sqlalchemy.orm import Session

from deployer.canary import CANARY_ITEMS, Canary, alarm, compare, reply
from deployer.gate_inputs import SYSTEM_NAME, certainty_of
from deployer.planting import Planted

log = logging.getLogger(__name__)

DAMAGED_FILES = (ArtifactError, UnusableCheckpoint)
"""Errors which mean that a checkpoint's files are damaged or not those that were judged."""

PROBE_PAUSE_S = 0.5


@dataclass(frozen=True)
class Rollout:
    """Controls one inference server under one claim, whose fencing token is sent with every switch.

    ``items`` are the canary's items, ``system_prompt`` the system turn with which they were judged. It is sent with the
    items, so that the server does not add today's.
    """

    work: Work
    server: InferenceServer
    items: tuple[Example, ...]
    system_prompt: str = ""

    @property
    def parse(self) -> Callable[[str], str]:
        """The profile's function that extracts the bare answer."""
        profile = self.settings.profile
        return get_profile(profile.name, profile.options).extract_answer

    @property
    def settings(self) -> Settings:
        return self.work.settings

    def load(self, checkpoint: CheckpointRow | Planted) -> None:
        """Load the verified artifact next to what is live, and unload the rest. Raises ServingError, TransientError."""
        live = self.server.live()
        self.unload_others({checkpoint.id} | ({live.checkpoint_id} if live else set()))
        path = self.work.artifacts.fetch(checkpoint.artifact)
        self.server.load(checkpoint.id, str(path), checkpoint.weights)
        failpoint("after-load")

    def smoke(self, checkpoint: CheckpointRow, record: Evaluation) -> Canary | str:
        """Load the checkpoint and run its canary; returns the reason if the server refuses to load it."""
        try:
            self.load(checkpoint)
            return self.canary(checkpoint.id, record)
        except ServingError as error:
            return f"the inference server refused it: {error}"

    def canary(self, checkpoint_id: str, record: Evaluation) -> Canary:
        """Compare the loaded checkpoint with its record, and note the result in the ledger."""
        found = self.compare(checkpoint_id, record)
        difference = found.numbers.largest_difference
        self.work.commit(lambda tx: note_canary(tx, checkpoint_id, found.passed, difference))
        return found

    def compare(self, checkpoint_id: str, record: Evaluation) -> Canary:
        """Score and answer the canary's items with the loaded checkpoint, and compare them with a record."""
        judged = {item.item_id: item for item in record.items}
        chats = [with_system_turn(item, self.system_prompt).prompt for item in self.items]
        expected = [judged[item.id] for item in self.items]
        decoding = Decoding(max_new_tokens=self.settings.suites.max_new_tokens)
        answers = self.server.generate(checkpoint_id, chats, decoding)
        scores = self.server.score(checkpoint_id, chats, [reply(item) for item in expected])
        return compare(
            self.items,
            expected,
            answers,
            scores,
            self.settings.serving,
            judged_under=record.key,
            served_under=self.server.health().conditions,
            parse=self.parse,
        )

    def bring_up(self, checkpoint: CheckpointRow) -> None:
        """Load the checkpoint and make it live, with the claim's fencing token. Raises ClaimLost if that is stale."""
        highest = self.server.health().highest_fencing_token
        if highest > self.work.claim.token:
            raise ClaimLost(f"the server refuses tokens below {highest}: another deployer has taken over.")
        self.load(checkpoint)
        with self.work.read() as session:
            certainty = certainty_of(session, checkpoint.id)
        self.server.switch(checkpoint.id, self.work.claim.token, certainty)
        failpoint("after-switch")

    def unload_others(self, keep: set[str]) -> None:
        """Unload all checkpoints but those in ``keep``."""
        for checkpoint_id in self.server.health().loaded:
            if checkpoint_id not in keep:
                self.server.unload(checkpoint_id)

    def watch(self, checkpoint: CheckpointRow, record: Evaluation, before: Traffic | None) -> str | None:
        """Watch the new champion for ``serving.watch_s``; returns the reason to roll it back, or None. The canary is
        repeated, so that a server without clients is checked too."""
        deadline = time.monotonic() + self.settings.serving.watch_s
        while True:
            verdict = self._probe(checkpoint, record, before)
            if verdict is not None or time.monotonic() >= deadline:
                return verdict
            self.work.progress(f"watching {checkpoint.id}")
            self.work.stop.wait(PROBE_PAUSE_S)

    def _probe(self, checkpoint: CheckpointRow, record: Evaluation, before: Traffic | None) -> str | None:
        live = self.server.live()
        if live is None or live.weights != checkpoint.weights:
            return f"the server serves {live.checkpoint_id if live else 'nothing'} instead"
        try:
            canary = self.canary(checkpoint.id, record)
        except ServingError as error:
            return f"a probe failed: {error}"
        if not canary.passed:
            return canary.reason
        return alarm(self.server.stats(checkpoint.id), before, self.settings.serving)


def prepare(work: Work, server: InferenceServer, checkpoint: CheckpointRow) -> tuple[Rollout, Evaluation] | NotReady:
    """The rollout with the canary's items, and the checkpoint's eval record to compare them with.

    A record that cannot be read is requested again.
    """
    with work.read() as session:
        suite = current(session, "eval")
        row = evaluation(session, checkpoint.id, suite.id)
    assert row is not None, "a contender has an eval record"
    record = load_if_intact(work.artifacts, row)
    if record is None:
        return request_again(row, SYSTEM_NAME)
    answered = {item.item_id for item in record.items if item.token_ids}  # not those that the chat template refuses
    items = tuple(item for item in load_suite(work.artifacts, suite).items if item.id in answered)[:CANARY_ITEMS]
    judged_under = PromptFormat.configured(work.settings, suite.created_at)
    return Rollout(work, server, items, judged_under.system_prompt), record


def fall_back(work: Work, rollout: Rollout, champion: CheckpointRow, error: Exception) -> Callable[[Transaction], None]:
    """Serve the newest intact earlier champion, unless one is live already; returns the effect that records this."""
    log.error("the champion %s cannot be served: %s", champion.id, error)
    served = _already_serving(work, rollout, champion) or _brought_up(work, rollout, champion)
    artifact = getattr(error, "artifact", None) or champion.artifact
    return lambda tx: note_fallback(tx, champion.id, served, artifact, str(error))


def _already_serving(work: Work, rollout: Rollout, champion: CheckpointRow) -> str | None:
    """The id of the live checkpoint, if it is not the champion and not blocked."""
    live = rollout.server.live()
    if live is None or live.checkpoint_id == champion.id:
        return None
    with work.read() as session:
        return None if session.get(BlockRow, live.weights) is not None else live.checkpoint_id


def _brought_up(work: Work, rollout: Rollout, champion: CheckpointRow) -> str | None:
    with work.read() as session:
        candidates = list(_predecessors(session, champion.id))
    for candidate in candidates:
        try:
            rollout.bring_up(candidate)
        except DAMAGED_FILES as error:
            log.error("%s cannot be served either: %s", candidate.id, error)
        else:
            return candidate.id
    return None


def _predecessors(session: Session, champion_id: str) -> Iterator[CheckpointRow]:
    """Earlier champions whose files are kept and whose weights are not blocked, newest first."""
    for checkpoint_id in earlier_champions(session):
        checkpoint = session.get_one(CheckpointRow, checkpoint_id)
        is_blocked = session.get(BlockRow, checkpoint.weights) is not None
        if checkpoint_id != champion_id and checkpoint.state == "saved" and not is_blocked:
            yield checkpoint
