"""The claims a worker has in hand, and how they go back to the ledger, uncounted, when it cannot finish them."""

from __future__ import annotations

import logging

from ratchet.errors import ClaimLost, TransientError
from ratchet.ledger import Ledger
from ratchet.systems import claims
from ratchet.systems.claims import Claim

log = logging.getLogger(__name__)


class HeldClaims:
    """Claims by token. One that could not be given back because the ledger was away is owed, and given back later."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._held: dict[int, Claim] = {}
        self._owed: dict[int, Claim] = {}

    def add(self, claim: Claim) -> None:
        self._held[claim.token] = claim

    def settle(self, claim: Claim) -> None:
        """The claim's subject has its verdict, or its failure is counted: nothing is in hand any more."""
        self._held.pop(claim.token, None)

    def give_back(self, claim: Claim) -> None:
        """Release the claim now, or owe it while the ledger is away."""
        self._held.pop(claim.token, None)
        self._owed[claim.token] = claim
        try:
            self.release_due()
        except TransientError as error:
            log.info("the claim on %s is owed: %s", claim.subject, error)

    def release_due(self) -> None:
        """Release what is owed. Raises TransientError while the ledger is away."""
        for token, claim in list(self._owed.items()):
            try:
                with self._ledger.write() as tx:
                    claims.release(tx, claim)
            except ClaimLost as error:
                log.info("nothing to give back: %s", error)
            self._owed.pop(token, None)

    def abandon(self) -> None:
        """Give everything back while its work still runs; a late commit of that work will be refused."""
        for claim in list(self._held.values()):
            self.give_back(claim)
