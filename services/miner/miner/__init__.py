"""The data side of judging: what a model gets wrong, lessons from it, the gate before the queue, and coverage."""
