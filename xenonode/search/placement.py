"""Where the trie nodes of one dimension live: the R nodes nearest to each one's key.

Decides how long a lookup's answer is believed, and for which other keys it is an answer too. A lookup returns every
node within a distance of its target; for a key so near to the target that its R nearest nodes lie safely inside that
distance, no other node can be nearer (the XOR metric's triangle inequality), so in a small network a few lookups
answer for all keys. Nobody is known about as far off as the nearest one that was silent; and where fewer than R
answered, those who were silent are holders all the same: silence must not make a network smaller than it is, or a part
of it would be searched for all of it. What was looked up is believed the longer the quieter the network is, and no
longer once a holder is silent or a nearer node is known; what is merely old is confirmed by asking one of the R
holders, by lot, and all of them where that one knows of others.

Sources: search.md of the design gives R = 3 and 15 s for cached paths; a lookup asks for one more than R, and for more
where somebody was silent in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dht.contact import Contact
from dht.errors import WireError
from dht.overlay import Overlay, Survey
from summaries.trie import Prefix

REPLICAS = 3
LOOKED_UP = REPLICAS + 1
"""The nearest three that answer are the nearest there are wherever all answer in time (in 400 lookups each of 300 and
of 1,500 nodes). Whoever knows none but colluders among so many nearest is theirs: with a fifth of all nodes, 7 of 600
lookups that look for three, 1 for four, none for eight."""
DOUBTED = 8
"""Where somebody was silent the lookup is done again for eight, of whom three are the nearest there are."""
NEAR = 8
"""Whoever is among the eight nearest that we know speaks for a prefix: nodes do not all know the same ones."""
SMALL_NETWORK = 80
LOOKED_UP_SMALL = 20
"""Whoever knows fewer than 80 nodes may be in a network that has just begun, where nobody knows all others yet: two
servers of fifty took themselves for the holders of a root, and what was published to them then was found by nobody."""
REMEMBERED_S = 30.0
"""Twice the rebuild period: a holder that left is noticed by its silence, one that came is told by the next lookup."""
REMEMBERED_MOST_S = 300.0
"""When our own table has not changed for so long, nobody near has come or gone: two heartbeats of an advert."""
CONFIRMED_WITHIN_S = 2 * REMEMBERED_MOST_S
"""What is too old to be believed can still be confirmed by the holders themselves, for as long again."""
DOUBTED_S = 4.0
"""Two hard time-outs of a question: by then who was silent has answered, or is lost."""
LATELY_S = 30.0
"""For so long who fell silent is not asked by lookups, and may be there all the same."""
MISSED_S = 450.0
"""An advert's life, three periods: what holders had who were lost longer ago has expired, or was told again."""
_Place = tuple[Prefix, int]
"""A prefix and whose key: that of a copy of it, or of it in another trie, or 0 for its own."""
NEIGHBOURHOODS_MAX = 64
PREFIXES_REMEMBERED_MAX = 4_096


@dataclass(slots=True)
class _Neighbourhood:
    """All nodes within `reach` of `centre`, as a lookup found them; or, for a prefix, its holders."""

    contacts: list[Contact]
    centre: int
    reach: int
    looked_up_s: float
    changes: int  # of the table, when these contacts were last compared with it
    doubted: bool = False  # whether somebody nearer than the last of them was silent, or they were


class Placement:
    """Finds and remembers the holders of prefixes."""

    def __init__(self, overlay: Overlay, key_of: Callable[[Prefix, int], bytes], replicas: int = REPLICAS) -> None:
        self.overlay, self.replicas = overlay, replicas
        self._key_of = key_of
        self._known: dict[_Place, _Neighbourhood] = {}
        self._neighbourhoods: list[_Neighbourhood] = []
        self._finding: dict[_Place, asyncio.Future[list[Contact]]] = {}
        self._changes, self._changed_s = 0, 0.0
        self._ranks: dict[_Place, int] = {}  # since the table last changed
        overlay.on_change(self._table_changed)

    def close(self) -> None:
        """The overlay is left: it may be entered again, with another one of these."""
        self.overlay.off_change(self._table_changed)

    def remembered(self, prefix: Prefix, group: int = 0) -> list[Contact] | None:
        """The holders of a prefix or of a copy of it, if a lookup that is still believed told them."""
        now_s = asyncio.get_running_loop().time()
        place = prefix, group
        held = self._known.get(place)
        if held is not None:
            if self._holds(held, now_s):
                return held.contacts
            if self._believed(held, now_s):
                del self._known[place]  # somebody is nearer; what is merely old can be confirmed
        key = int.from_bytes(self._key_of(prefix, group), "big")
        for wide in list(self._neighbourhoods):
            contacts = _nearest_within(wide, key, self.replicas)
            if contacts is None:
                continue
            held = _Neighbourhood(contacts, key, contacts[-1].number ^ key, wide.looked_up_s, -1)
            believed = self._believed(wide, now_s)
            if believed and self._holds(held, now_s):
                return self._remember(place, held)
            if believed or now_s > wide.looked_up_s + CONFIRMED_WITHIN_S:
                self._neighbourhoods.remove(wide)
            elif place not in self._known:
                self._remember(place, held)
        return None

    def told(self, prefix: Prefix, named: Sequence[bytes], group: int = 0) -> list[Contact] | None:
        """The nearest of those who are named as holders, unless they are too few or we know somebody who is nearer."""
        try:
            different = {contact.number: contact for contact in map(Contact.unpack, named)}
        except WireError:
            return None
        if len(different) < self.replicas:
            return None
        key = int.from_bytes(self._key_of(prefix, group), "big")
        contacts = sorted(different.values(), key=lambda contact: contact.number ^ key)[: self.replicas]
        now_s = asyncio.get_running_loop().time()
        held = _Neighbourhood(contacts, key, contacts[-1].number ^ key, now_s, -1)
        return self._remember((prefix, group), held) if self._holds(held, now_s) else None

    async def find(self, prefix: Prefix, group: int = 0) -> list[Contact]:
        """The holders, by a lookup if need be; who asks while one is under way shares it."""
        known = self.remembered(prefix, group)
        if known is not None:
            return known
        place = prefix, group
        under_way = self._finding.get(place)
        if under_way is not None:
            return await asyncio.shield(under_way)
        loop = asyncio.get_running_loop()
        promise = self._finding[place] = loop.create_future()
        contacts: list[Contact] = []
        try:
            contacts = await self._look_up(place)
        finally:
            del self._finding[place]
            if not self._finding:
                self._finding = {}  # an emptied dictionary keeps its room, and a node has one for each dimension
            if not promise.done():
                promise.set_result(contacts)
        return contacts

    async def _look_up(self, place: _Place) -> list[Contact]:
        packed = self._key_of(*place)
        key = int.from_bytes(packed, "big")
        held = self._known.get(place)
        if held is not None and len(held.contacts) >= self.replicas and await self._confirmed(packed, key, held):
            now_s = asyncio.get_running_loop().time()
            return self._remember(place, _Neighbourhood(held.contacts, key, held.reach, now_s, self._changes))
        few = len(self.overlay.table) < SMALL_NETWORK
        count = LOOKED_UP_SMALL if few else LOOKED_UP
        survey = await self.overlay.survey(packed, count)
        if survey.silent and not few:
            count = DOUBTED  # whoever was met late has a session now, and answers in time
            survey = await self.overlay.survey(packed, count)
        contacts, silent = self._counted(key, survey), survey.silent
        if len(contacts) < self.replicas:
            known = {contact.node_id: contact for contact in self.overlay.missed(MISSED_S) + survey.lost + silent}
            silent = _nearest(key, [one for one in known.values() if one not in contacts])
            contacts = _nearest(key, contacts + silent[: self.replicas - len(contacts)])
        if not contacts:
            return []
        now_s = asyncio.get_running_loop().time()
        # Fewer than we asked for are all there are, where nobody was silent.
        reach = survey.found[-1].number ^ key if len(survey.found) >= count else 1 << 160
        sure = min(reach, silent[0].number ^ key) if silent else reach
        if len(survey.found) > self.replicas:
            if len(self._neighbourhoods) >= NEIGHBOURHOODS_MAX:
                del self._neighbourhoods[0]
            self._neighbourhoods.append(_Neighbourhood(survey.found, key, sure, now_s, self._changes))
        last = contacts[-1].number ^ key
        held = _Neighbourhood(contacts, key, last, now_s, self._changes, sure <= last)
        return self._remember(place, held)

    async def _confirmed(self, packed: bytes, key: int, held: _Neighbourhood) -> bool:
        """Whether old holders are the holders still: one of them names nobody who is nearer, or else all three answer.

        Who came since has made itself known to the nearest. Which of them is asked is drawn, so that what one does not
        know, or hides, another tells the next time; and who is gone is silent to what it is looked for, and forgotten.
        """
        overlay = self.overlay
        others = [one for one in held.contacts if one.node_id != overlay.node_id]
        if others and not held.doubted:
            asked = overlay.endpoint.rng.choice(others)
            named = await overlay.named_by(asked, packed)
            if named is not None:
                met = [*named, *overlay.missed(LATELY_S), asked, *overlay.known(packed, self.replicas)]
                known = {one.node_id: one for one in met if not self.shuns(one)}
                if _nearest(key, list(known.values()))[: self.replicas] == held.contacts:
                    return True
        survey = await overlay.survey(packed, self.replicas)
        return survey.found == held.contacts == self._counted(key, survey)

    def _counted(self, key: int, survey: Survey) -> list[Contact]:
        """The holders as far as a lookup knows: who answered, and who did not but has been met.

        A moment's silence makes nobody else a holder: what others took meanwhile, nobody would find once those who
        were silent answer readers again. Who was merely named is not counted, or liars could name holders that are not.
        """
        table = self.overlay.table
        unheard = [one for one in survey.silent if table.get(one) is not None] + self.overlay.missed(LATELY_S)
        known = {one.node_id: one for one in survey.found + unheard if not self.shuns(one)}
        return _nearest(key, list(known.values()))[: self.replicas]

    def shuns(self, contact: Contact) -> bool:
        """Whether nobody is to be asked there: whoever it is hides adverts."""
        return contact.node_id in self.overlay.shunned

    def forget(self, prefix: Prefix, group: int = 0) -> None:
        """A holder did not answer: look it up again next time."""
        self._known.pop((prefix, group), None)
        key = int.from_bytes(self._key_of(prefix, group), "big")
        self._neighbourhoods = [
            wide for wide in self._neighbourhoods if _nearest_within(wide, key, self.replicas) is None
        ]

    def may_hold(self, prefix: Prefix, holder: bytes, group: int = 0) -> bool:
        """Whether a node is near enough to a prefix's key to speak for it: among the nearest that we know."""
        contact = Contact.unpack(holder)
        if self.shuns(contact):
            return False
        key = self._key_of(prefix, group)
        number = int.from_bytes(key, "big")
        nearest = self.overlay.known(key, NEAR)
        if len(nearest) < NEAR:
            return True
        return contact.number ^ number <= nearest[-1].number ^ number

    def rank(self, prefix: Prefix, group: int = 0) -> int:
        """The how-manieth nearest to a prefix's key this node is, as far as it knows; at most R."""
        rank = self._ranks.get((prefix, group))
        if rank is None:
            own_id = self.overlay.node_id
            nearest = self.overlay.known(self._key_of(prefix, group), self.replicas)
            rank = next((place for place, contact in enumerate(nearest) if contact.node_id == own_id), self.replicas)
            if len(self._ranks) >= PREFIXES_REMEMBERED_MAX:
                self._ranks.clear()
            self._ranks[prefix, group] = rank
        return rank

    def near(self, prefix: Prefix, group: int = 0) -> list[Contact]:
        """Whom we know near a prefix's key, many more than its holders."""
        return self.overlay.known(self._key_of(prefix, group), LOOKED_UP_SMALL)

    def _remember(self, place: _Place, held: _Neighbourhood) -> list[Contact]:
        if len(self._known) >= PREFIXES_REMEMBERED_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[place] = held
        return held.contacts

    def _believed(self, held: _Neighbourhood, now_s: float) -> bool:
        """What the table has been for a while, it will probably be for as long again."""
        quiet_s = min(max(held.looked_up_s - self._changed_s, REMEMBERED_S), REMEMBERED_MOST_S)
        return now_s < held.looked_up_s + (DOUBTED_S if held.doubted else quiet_s)

    def _holds(self, held: _Neighbourhood, now_s: float) -> bool:
        """Whether holders are still believed: not too old, and none that we have met since is nearer."""
        if not self._believed(held, now_s) or any(self.shuns(contact) for contact in held.contacts):
            return False
        if held.changes != self._changes and len(held.contacts) >= self.replicas:
            nearest = self.overlay.known(held.centre.to_bytes(20, "big"), self.replicas)
            if any(contact.number ^ held.centre < held.reach and contact not in held.contacts for contact in nearest):
                return False
        elif held.changes != self._changes:
            return False  # fewer than R were all there were
        held.changes = self._changes
        return True

    def _table_changed(self) -> None:
        self._changes += 1
        self._ranks.clear()
        self._changed_s = asyncio.get_running_loop().time()


def _nearest(key: int, contacts: list[Contact]) -> list[Contact]:
    return sorted(contacts, key=lambda contact: contact.number ^ key)


def _nearest_within(wide: _Neighbourhood, key: int, count: int) -> list[Contact] | None:
    """The `count` nodes nearest to a key, where a neighbourhood proves that they are."""
    offset = key ^ wide.centre
    if offset >= wide.reach:
        return None
    nearest = _nearest(key, wide.contacts)[:count]
    # Whoever is outside is at least `reach` from the centre, hence at least reach - offset from the key.
    if len(nearest) < count and wide.reach < 1 << 160:
        return None
    if (nearest[-1].number ^ key) + offset >= wide.reach:
        return None
    return nearest
