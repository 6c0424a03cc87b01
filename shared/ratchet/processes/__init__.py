"""Ratchet's processes: children that run one function, and long-lived ones that a supervisor keeps running."""
