"""Many seeds of small platforms under faults, several at a time, and a table of what happened."""
