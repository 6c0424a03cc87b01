"""Leases on what a machine has few of: GPU memory and worker names. Freed the moment the holder dies."""
