"""Every decoder against bytes that nobody meant."""
