"""Processes of ours: children that run one function, and the long-lived ones that a supervisor keeps running."""
