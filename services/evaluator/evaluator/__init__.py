"""The judging systems: testing makes one record of each checkpoint; regression, comparison and calibration read it."""
