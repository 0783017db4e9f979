"""Numbers of the application messages that XenoSearch adds to the overlays; once given, they stay."""

from __future__ import annotations

TRIE = 1
"""In an overlay: a question or an answer of `summaries.messages` about this dimension's trie."""
ADVERT = 1
"""In no overlay: 'your advert, please'; the answer is the server's current signed advert."""
SCHEMA = 2
"""In no overlay: 'what follows the schema of this hash, from this byte on?'; the answer is its length and a piece."""
MEASURE = 3
"""In no overlay: 'how far are you from this host and port?'; the answer is a round trip and the server's coordinate."""
