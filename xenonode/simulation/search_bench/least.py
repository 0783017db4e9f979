"""How few leaves a query could be answered from: what no plan over these tries goes below.

Decides the bound that is printed beside the questions really asked: of the tries, the one whose leaves with an answer
in them are fewest. Who reads it knows what is due to the questions and what to the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from summaries.node import TrieNode
from summaries.trie import Prefix


class LeastLeaves:
    """Where each advert's rows are, in every trie."""

    def __init__(self, tries: Mapping[str, Mapping[Prefix, TrieNode]]) -> None:
        self._places: list[tuple[NDArray[np.uint64], NDArray[np.int32]]] = []
        for trie in tries.values():
            leaves = [node.rows.array["id"] for node in trie.values() if len(node.rows)]
            ids = np.concatenate(leaves) if leaves else np.zeros(0, dtype=np.uint64)
            numbers = np.repeat(np.arange(len(leaves), dtype=np.int32), [len(one) for one in leaves])
            order = np.argsort(ids, kind="stable")
            self._places.append((ids[order], numbers[order]))

    def of(self, ids: Sequence[int]) -> int:
        """Leaves that hold these adverts, in the trie where they are fewest; one posting each will do."""
        wanted = np.array(ids, dtype=np.uint64)
        return min(
            (len(np.unique(numbers[np.searchsorted(held, wanted)])) for held, numbers in self._places), default=0
        ) if len(wanted) else 0
