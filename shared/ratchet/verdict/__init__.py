"""A verdict on any two models outside a run: who is asked, on what, and the answers as records for the gate's tests."""
