"""Leases on scarce resources of a machine: GPU memory and worker names. They are released when the holder dies."""
