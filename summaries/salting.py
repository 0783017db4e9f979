"""Several tries of one dimension, for dimensions that are searched most: three holders a leaf carry only so much.

Each holds the same adverts under keys of its own (the salt is a field of what is hashed), and they share nothing else:
each splits, widens, rebuilds and acknowledges by itself, so that whatever holds in one trie holds in each. A server is
published to all of them, and counts as published in the dimension once every one acknowledged it. A reader draws one,
and reads that alone: what was acknowledged is in it. So no node has to be told how many others there are, none waits
for another's copy, and a holder that lies hides an advert from those only who drew its trie.

What it costs is publishing: once more for each trie. Roots alone have cheaper copies (copying.py), and where there are
several tries they have none. How many tries a dimension has is signed with the schema, since both sides must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm


def salts_of(tries: Mapping[str, int], drawn: int) -> dict[str, int]:
    """Which trie to read of each dimension that has several, where a reader drew this number."""
    return {name: drawn % count for name, count in tries.items()}


def draws(tries: Mapping[str, int], root_groups: int = 1) -> int:
    """Among how many numbers a reader draws, so that all tries, and all groups of a root, are as likely."""
    return lcm(root_groups, *tries.values())
