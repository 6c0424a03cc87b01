"""A plug-in for tests: each module declares a system; installed by ``RATCHET_SYSTEMS=tests.support.toys`` alone."""
