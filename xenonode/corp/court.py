"""Which holders hide adverts, by what publishers saw of them: XenoCorp judges, since it alone hears all of them.

Decides whom all members shun: a holder of whom, within two periods, eight more of the entities that looked say that it
hides their adverts of one dimension than say that it shows them. One voice an entity, its latest. An honest holder is
accused by liars alone, who are a fifth; a liar by all the rest, but perhaps in one trie alone. A holder that hides
from few goes on, and so hides little.

It is Wald's sequential test, since voices come one by one and judgement may be passed after each: where a share q of
the voices lies, they are ahead by n at some time with a chance of (q / (1 - q)) ** n. With n = 8 and a fifth of liars
that is 1 in 65,000 a holder and dimension, with three in ten of them 1 in 900.

That holds for voices in an order that nobody chose. Entities that agree speak when and where they like: eight more than
the honest ones that lately looked at a holder in one dimension, be these few, convict it for a day, and 36 do whatever
the others say, since 64 voices are kept. What they can do is bounded by how many entities XenoCorp admits to them.

Testimony is soft state: it is told anew every period, and a judgement ends after a day, when the holder is tried again.
It costs a holder its part in the network, never money.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

VOICES_AHEAD = 8  # of distinct entities against it, more than for it: see above
HEARD_MS = 300_000  # two periods of a heartbeat
SHUNNED_MS = 86_400_000
MAX_HOLDERS, MAX_VOICES = 65_536, 64  # holders that were looked at lately, and voices kept of each: the newest


class Court:
    """All testimony of the last two periods."""

    def __init__(self) -> None:
        self.voices: OrderedDict[tuple[bytes, str], OrderedDict[str, tuple[bool, int]]] = OrderedDict()
        self._shunned: dict[bytes, int] = {}  # until when

    def testify(self, entity: str, dimension: str, seen: Mapping[bytes, bool], now_ms: int) -> None:
        """What one entity saw of the holders that it looked at in one dimension."""
        for holder, shows in seen.items():
            voices = self.voices.setdefault((holder, dimension), OrderedDict())
            self.voices.move_to_end((holder, dimension))
            voices.pop(entity, None)
            voices[entity] = shows, now_ms
            while len(voices) > MAX_VOICES:
                voices.popitem(last=False)
            if self._is_guilty(voices, now_ms):
                self._shunned[holder] = now_ms + SHUNNED_MS
                voices.clear()  # who is tried again is judged by what is seen then
        while len(self.voices) > MAX_HOLDERS:
            self.voices.popitem(last=False)

    def shunned(self, now_ms: int) -> list[bytes]:
        """Whom nobody should ask now."""
        for holder in [one for one, until_ms in self._shunned.items() if until_ms <= now_ms]:
            del self._shunned[holder]
        return sorted(self._shunned)

    def _is_guilty(self, voices: Mapping[str, tuple[bool, int]], now_ms: int) -> bool:
        heard = [shows for shows, at_ms in voices.values() if at_ms > now_ms - HEARD_MS]
        shows = sum(heard)
        return len(heard) - shows >= shows + VOICES_AHEAD
