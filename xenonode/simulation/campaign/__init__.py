"""Many runs of one scenario: seeds times the points of a sweep, on all cores, kept, resumed, and drawn."""
