"""The live view: what is going on, read from the ledger, drawn for a terminal or told in plain lines."""
