"""A publication that reaches nobody ends, and leaves the old postings to the next one.

Found by a simulated seed: a server whose long datagrams vanished for half a minute, while its coordinate moved, waited
for ever for deletions that had not begun, and never advertised again.
"""

from __future__ import annotations

from summaries_world import World
from test_false_splits import NAME, SAMPLE, SCHEMA

from summaries.publish import Posting, Publication
from summaries.trie import ROOT, is_near, keys_of


def test_a_publication_that_nobody_answers_ends_and_keeps_what_it_could_not_delete() -> None:
    world = World(1, 1, SCHEMA)
    raw = world.advert(1, 1, SAMPLE[0])
    point = world.adverts[raw]
    own, axis = keys_of(SCHEMA, NAME, point)[0], SCHEMA.dimension(NAME)
    far = next(own ^ 1 << bit for bit in range(63, -1, -1) if not is_near(axis, own ^ 1 << bit, own))
    publication = Publication(SCHEMA, NAME, point, raw, (Posting(far, ROOT),))
    asks = publication.start()
    for _ in range(1_000):
        if not asks:
            break
        asks += publication.answered(asks.pop(0), None)
    assert not asks and publication.finished and not publication.durable
    assert far in {posting.key for posting in publication.postings}
