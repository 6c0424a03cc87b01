"""Running everything on one machine: the lock, the start and stop of all parts, and the count of cycles."""
