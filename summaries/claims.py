"""Which adverts others say that they have, and whom a starting holder asks for each.

Decides by what has come, never by a claim alone: whoever showed the newest number is asked first, then the next best,
each once for what it showed, until what is held is as new as whatever was shown under each key. So who names a number
that it cannot serve delays a row, and hides nobody else's. recovering.py says what is held, and verifies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

MAX_CLAIMS = 8_192  # of one sender, twice what MAX_PAGES pages show: what it shows beyond is dropped, nobody else's
MAX_SILENCES = 64  # of one sender, asked 16 at once with time-outs of 2 s: for 8 s; then it is asked no more

_Shown = dict[bytes, dict[int, int]]  # by sender: the number shown, by key
Newest = Callable[[int, int], int]  # the number held of an advert under a key, or less than any


class Claims:
    """What was shown in one attempt of a recovery."""

    __slots__ = ("_coming", "_counts", "_silences", "_unanswered", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[int, _Shown] = {}  # by advert; one is either here or in _coming
        self._coming: dict[int, tuple[bytes, _Shown]] = {}  # who was asked for it
        self._unanswered: list[tuple[int, int, int]] = []  # (advert, key, number) of those who did not answer
        self._counts: Counter[bytes] = Counter()
        self._silences: Counter[bytes] = Counter()

    @property
    def coming(self) -> int:
        """Of how many adverts an answer is awaited; each is asked of one at a time."""
        return len(self._coming)

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def note(self, id: int, key: int, seq: int, sender: bytes) -> None:
        """A sender shows an advert."""
        if self._counts[sender] >= MAX_CLAIMS:
            return
        self._counts[sender] += 1
        shown = self._coming[id][1] if id in self._coming else self._waiting.setdefault(id, {})
        keys = shown.setdefault(sender, {})
        keys[key] = max(seq, keys.get(key, seq))

    def next(self, newest: Newest) -> tuple[int, bytes] | None:
        """The next advert to ask for, and of whom; None where all that waits is held by now."""
        while self._waiting:
            id = next(iter(self._waiting))
            shown = self._waiting.pop(id)
            for silent in [one for one in shown if self._silences[one] >= MAX_SILENCES]:
                self._give_up(id, shown.pop(silent))
            lacking = {
                one: max((seq for key, seq in keys.items() if newest(id, key) < seq), default=-1)
                for one, keys in shown.items()
            }
            sender = max(lacking, key=lacking.__getitem__, default=b"")  # the first of equals
            if lacking.get(sender, -1) < 0:
                continue
            self._coming[id] = sender, shown
            return id, sender
        return None

    def answered(self, id: int) -> set[int]:
        """Whoever was asked for this advert answered. The keys under which anybody showed it."""
        return self._asked(id)[1]

    def unanswered(self, id: int) -> None:
        """Whoever was asked for this advert did not answer: what it showed was not refuted either."""
        self._silences[self._coming[id][0]] += 1
        self._give_up(id, self._asked(id)[0])

    def missing(self, newest: Newest) -> bool:
        """Whether something was shown by who did not answer, and came from nobody else either."""
        return any(newest(id, key) < seq for id, key, seq in self._unanswered)

    def _give_up(self, id: int, keys: dict[int, int]) -> None:
        self._unanswered += [(id, key, seq) for key, seq in keys.items()]

    def _asked(self, id: int) -> tuple[dict[int, int], set[int]]:
        """What whoever was asked showed of it, and the keys of all; what the others showed waits again."""
        sender, shown = self._coming.pop(id)
        keys = {key for one in shown.values() for key in one}
        own = shown.pop(sender)
        if shown:
            self._waiting[id] = shown
        return own, keys
