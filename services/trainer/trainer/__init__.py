"""The training system: an engine that trains one bounded segment, and the controller that chains segments."""
