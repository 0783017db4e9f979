"""XenoSearch beside other ways to search, on one machine: the real holders, publications and searches, in memory."""
