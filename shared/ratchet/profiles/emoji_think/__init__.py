"""Answers between marks: a run of thinking emoji before and a run of stop emoji after, as the question requests."""
