"""Deliberate bugs, planted in a test's own process only: what the invariants must catch."""
