"""The live view: the state of the ledger, drawn on a terminal or printed as plain lines."""
