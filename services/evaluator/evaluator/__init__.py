"""The judging systems: testing makes one record of every checkpoint; regression, comparison and calibration read it."""
