"""From a promoted checkpoint to what clients get: load beside the champion, check, switch, watch, or roll back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ratchet.data.example import Example
from ratchet.errors import ClaimLost, ServingError
from ratchet.evaluation.record import Evaluation
from ratchet.failpoint import failpoint
from ratchet.inference.generator import Decoding
from ratchet.ledger.deployments import note_canary
from ratchet.ledger.tables import CheckpointRow
from ratchet.profiles.profile import get_profile, with_system_turn
from ratchet.serving.protocol import InferenceServer, Traffic
from ratchet.settings import Settings
from ratchet.systems import Work

from deployer.canary import Canary, compare, reply
from deployer.facts import certainty_of
from deployer.watch import alarm

PROBE_PAUSE_S = 0.5


@dataclass(frozen=True)
class Rollout:
    """Drives one inference server on behalf of one claim, whose token fences every switch.

    ``items`` are the canary's items, ``record`` the checkpoint's record that holds them, ``system_prompt`` the system
    turn that they were judged under: with it, they are not put under the day's.
    """

    work: Work
    server: InferenceServer
    items: tuple[Example, ...]
    system_prompt: str = ""

    @property
    def parse(self) -> Callable[[str], str]:
        """The profile's way of reading an answer."""
        profile = self.settings.profile
        return get_profile(profile.name, profile.options).extract_answer

    @property
    def settings(self) -> Settings:
        return self.work.settings

    def load(self, checkpoint: CheckpointRow) -> None:
        """Load the verified artifact beside what is live, and nothing else. Raises ServingError, TransientError."""
        live = self.server.live()
        self.tidy({checkpoint.id} | ({live.checkpoint_id} if live else set()))
        path = self.work.artifacts.fetch(checkpoint.artifact)
        self.work.progress(f"loading {checkpoint.id}")
        self.server.load(checkpoint.id, str(path), checkpoint.weights)
        failpoint("after-load")

    def smoke(self, checkpoint: CheckpointRow, record: Evaluation) -> Canary | str:
        """Whether what is loaded is what was judged; a sentence where the server refuses it altogether."""
        try:
            self.load(checkpoint)
            return self.canary(checkpoint.id, record)
        except ServingError as error:
            return f"the inference server refused it: {error}"

    def canary(self, checkpoint_id: str, record: Evaluation) -> Canary:
        """Score and answer the canary's items on the loaded checkpoint, and compare with its record."""
        judged = {item.item_id: item for item in record.items}
        chats = [with_system_turn(item, self.system_prompt).prompt for item in self.items]
        expected = [judged[item.id] for item in self.items]
        self.work.progress(f"canary of {checkpoint_id}")
        decoding = Decoding(max_new_tokens=self.settings.suites.max_new_tokens)
        answers = self.server.generate(checkpoint_id, chats, decoding)
        scores = self.server.score(checkpoint_id, chats, [reply(item) for item in expected])
        found = compare(
            self.items,
            expected,
            answers,
            scores,
            self.settings.serving,
            judged_under=record.key,
            served_under=self.server.health().conditions,
            parse=self.parse,
        )
        difference = found.numbers.largest_difference
        self.work.commit(lambda tx: note_canary(tx, checkpoint_id, found.passed, difference))
        return found

    def bring_up(self, checkpoint: CheckpointRow) -> None:
        """Load it and make it live, under the claim's fencing token. Raises ClaimLost where that is stale."""
        highest = self.server.health().highest_token
        if highest > self.work.claim.token:
            raise ClaimLost(f"the server obeys no token below {highest}: another deployer has taken over.")
        self.load(checkpoint)
        with self.work.read() as session:
            certainty = certainty_of(session, checkpoint.id)
        self.server.switch(checkpoint.id, self.work.claim.token, certainty)
        failpoint("after-switch")

    def tidy(self, keep: set[str]) -> None:
        """Unload all others."""
        for checkpoint_id in self.server.health().loaded:
            if checkpoint_id not in keep:
                self.server.unload(checkpoint_id)

    def watch(self, checkpoint: CheckpointRow, record: Evaluation, before: Traffic | None) -> str | None:
        """Watch the new champion for ``serving.watch_s``; why it should go back, or None. Synthetic probes help out."""
        deadline = time.monotonic() + self.settings.serving.watch_s
        while True:
            verdict = self._look(checkpoint, record, before)
            if verdict is not None or time.monotonic() >= deadline:
                return verdict
            self.work.progress(f"watching {checkpoint.id}")
            self.work.stop.wait(PROBE_PAUSE_S)

    def _look(self, checkpoint: CheckpointRow, record: Evaluation, before: Traffic | None) -> str | None:
        live = self.server.live()
        if live is None or live.weights != checkpoint.weights:
            return f"the server serves {live.checkpoint_id if live else 'nothing'} in its place"
        try:
            canary = self.canary(checkpoint.id, record)
        except ServingError as error:
            return f"a probe failed: {error}"
        if not canary.passed:
            return canary.reason
        return alarm(self.server.stats(checkpoint.id), before, self.settings.serving)
