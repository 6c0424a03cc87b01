"""The deployment gate: the tests of a challenger against a champion, the decision, and its reasons. Pure."""
