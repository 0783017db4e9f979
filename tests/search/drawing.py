"""A client that reads what it was told to draw: one group of roots' holders, or one of a dimension's tries."""

from __future__ import annotations

from xenonode.simulation.crowd import Crowd

EVERYTHING = "price.cpu >= 0 USD/h order by price.cpu"


def found(crowd: Crowd, drawn: int) -> int:
    """How many servers a client finds that drew this group, or this trie. Its answer is complete."""
    client = crowd.clients[0]
    assert client.peer is not None
    client.peer.searcher._drawn = drawn, client.peer.env.now_ms()
    answer = crowd.run(client.call(lambda each: each.search(EVERYTHING)))
    assert answer.complete
    return len(answer.servers)
