"""Answers between marks: a run of thinking emoji before, a run of stop emoji after, as the question asks."""
