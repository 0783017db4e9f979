"""XenoSearch's mathematics: points, ranges and sets. Knows no sockets."""
