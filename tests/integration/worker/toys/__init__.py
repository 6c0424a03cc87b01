"""A plug-in for tests: each module declares a system; installed by ``RATCHET_SYSTEMS=toys`` alone."""
