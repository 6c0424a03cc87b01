"""`ratchet report`: one self-contained page about a run. Reads the ledger; draws with matplotlib; needs no server."""
