"""One iterative lookup as a state machine: contacts and answers in, contacts to ask out.

Decides whom to ask next, when the lookup is over and what it found. Leaves sending, timers and what an
answer means to `overlay`. No clock, no socket, no exception for what a peer may say.

A contact's states:

    new --ask--> asked --slow--> late --overdue--> overdue
    asked, late, overdue --answer--> answered
    asked, late, overdue --time-out, refusal, nonsense--> failed

    new --all who named it have lied--> doubted --somebody else names it--> new

While late, its slot is free for another question; once overdue, the lookup does not wait for it either.

Sources: Maymounkov and Mazieres 2002 (alpha in flight; the k nearest must have answered); Baumgart and Mies
2007, S/Kademlia (disjoint paths: no contact is asked on two paths); libtorrent's traversal (a slow peer's
slot is given to the next while its answer still counts).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .contact import Contact

# Questions in flight; the paper has 3, libtorrent 5.
ALPHA = 4
# Once so many of the nearest have answered, nobody nearer is expected, and the rest of the k are asked at once, as in
# the paper's section 2.3: no question more in a clean network (21.7 of 600 nodes either way), and one wait for all
# who are silent instead of one after the other.
SETTLED = 4
# Questions one lookup may ask in all; a clean lookup among 10,000 nodes asks about 40.
MAX_ASKED = 160
# What a failure says of those who named the contact: that another node answers there is nearly always a lie, that
# nobody answers may be an accident, and one that answers speaks for them. At this score nobody believes them more.
HOSTILE_BLAME, SILENT_BLAME, GOOD_CREDIT, MAX_BLAME = 3, 1, 2, 6
# Contacts one path may remember: a colluder's answers must not grow without bound.
MAX_CANDIDATES = 400

_NEW, _ASKED, _LATE, _OVERDUE, _ANSWERED, _FAILED, _DOUBTED = range(7)


@dataclass(slots=True)
class _Path:
    """One path's shortlist: (distance, contact), nearest first."""

    alpha: int
    shortlist: list[tuple[int, bytes, Contact]] = field(default_factory=list)
    in_flight: int = 0
    done: bool = False


class Lookup:
    """The search for the k contacts nearest to a target, or for the first value on the way."""

    __slots__ = (
        "_admit",
        "_asked",
        "_blame",
        "_namers",
        "_path_of",
        "_paths",
        "_state",
        "alpha",
        "done",
        "hostile",
        "k",
        "target",
        "value",
    )

    def __init__(
        self,
        target: int,
        seeds: Iterable[Contact],
        *,
        k: int,
        own_id: bytes | None = None,
        alpha: int = ALPHA,
        disjoint: int = 1,
        admit: Callable[[Contact], bool] | None = None,
    ) -> None:
        """`admit` is asked once for each contact that the lookup had not met before."""
        self.target = target
        self.k = k
        self.alpha = alpha
        self.value: object = None
        self.done = False
        self.hostile: list[Contact] = []
        self._admit = admit
        self._asked = 0
        self._state: dict[bytes, int] = {}
        # Who named a contact, and how far each of them is to blame.
        self._namers: dict[bytes, list[bytes]] = {}
        self._blame: dict[bytes, int] = {}
        self._path_of: dict[bytes, _Path] = {}
        if own_id is not None:
            # Nobody needs to tell us about ourselves.
            self._state[own_id] = _FAILED
        self._paths = [_Path(max(1, alpha // disjoint)) for _ in range(max(1, disjoint))]
        by_id = {contact.node_id: contact for contact in seeds}
        if own_id is not None:
            by_id.pop(own_id, None)
        first = sorted((contact.number ^ target, own, contact) for own, contact in by_id.items())
        for index, path in enumerate(self._paths):
            path.shortlist = first[index :: len(self._paths)]
            for _, own, _ in path.shortlist:
                self._state[own] = _NEW
                self._path_of[own] = path

    def start(self) -> list[Contact]:
        """The first contacts to ask; none when the lookup is over before it began."""
        return self._advance()

    def answered(self, contact: Contact, contacts: Iterable[Contact]) -> list[Contact]:
        """A good answer, on time or late; whom to ask now."""
        path = self._close(contact, _ANSWERED)
        if path is None:
            return []
        state, namers, namer = self._state, self._namers, contact.node_id
        self._judge(contact, -GOOD_CREDIT)
        for each in contacts:
            node_id = each.node_id
            known = state.get(node_id)
            if known is None:
                if self._admit is None or self._admit(each):
                    self._note(path, each)
                    namers[node_id] = [namer]
            elif (named_by := namers.get(node_id)) is not None:
                named_by.append(namer)
                if known == _DOUBTED and self._blame.get(namer, 0) < MAX_BLAME:
                    state[node_id] = _NEW
                    self._path_of[node_id].done = False
        return self._advance()

    def slow(self, contact: Contact) -> list[Contact]:
        """No answer within the soft time-out: its slot is free, its answer still counts."""
        if self._state.get(contact.node_id) != _ASKED or self.done:
            return []
        path = self._path_of[contact.node_id]
        self._state[contact.node_id] = _LATE
        path.in_flight -= 1
        return self._advance()

    def overdue(self, contact: Contact) -> list[Contact]:
        """So late that nobody should wait for it; its answer would still count."""
        before = self._state.get(contact.node_id)
        if self.done or before not in (_ASKED, _LATE):
            return []
        if before == _ASKED:
            self._path_of[contact.node_id].in_flight -= 1
        self._state[contact.node_id] = _OVERDUE
        self._judge(contact, SILENT_BLAME)
        return self._advance()

    def failed(self, contact: Contact, *, hostile: bool = False) -> list[Contact]:
        """A time-out, a refusal or (`hostile`) an answer that no honest peer gives; whom to ask now."""
        if hostile:
            self.hostile.append(contact)
        if self._close(contact, _FAILED) is None:
            return []
        self._judge(contact, HOSTILE_BLAME if hostile else SILENT_BLAME)
        return self._advance()

    def found(self, value: object) -> None:
        """A valid value: the lookup is over at once."""
        if not self.done:
            self.value = value
            self.done = True

    def result(self) -> list[Contact]:
        """The nearest contacts that answered, nearest first, at most k."""
        answered = {
            entry[:2]: entry[2]
            for path in self._paths
            for entry in path.shortlist
            if self._state[entry[1]] == _ANSWERED
        }
        return [answered[key] for key in sorted(answered)[: self.k]]

    def path_of(self, contact: Contact) -> int:
        """On which of the disjoint paths this contact is; -1 when on none."""
        path = self._path_of.get(contact.node_id)
        return -1 if path is None else next(n for n, each in enumerate(self._paths) if each is path)

    @property
    def asked(self) -> int:
        """How many questions were asked."""
        return self._asked

    def _note(self, path: _Path, contact: Contact) -> None:
        if contact.node_id in self._state or len(path.shortlist) >= MAX_CANDIDATES:
            return
        self._state[contact.node_id] = _NEW
        self._path_of[contact.node_id] = path
        insort(path.shortlist, (contact.number ^ self.target, contact.node_id, contact))

    def _judge(self, contact: Contact, weight: int) -> None:
        """Credit or blame those who named a contact; what only liars named is not asked."""
        blame = self._blame
        for namer in self._namers.get(contact.node_id, ()):
            before = blame.get(namer, 0)
            blame[namer] = before + weight
            if before < MAX_BLAME <= before + weight:
                self._doubt()

    def _doubt(self) -> None:
        state, blame = self._state, self._blame
        for node_id, namers in self._namers.items():
            if state.get(node_id) == _NEW and all(blame.get(namer, 0) >= MAX_BLAME for namer in namers):
                state[node_id] = _DOUBTED

    def _close(self, contact: Contact, state: int) -> _Path | None:
        before = self._state.get(contact.node_id)
        if self.done or before not in (_ASKED, _LATE, _OVERDUE):
            return None
        path = self._path_of[contact.node_id]
        if before == _ASKED:
            path.in_flight -= 1
        self._state[contact.node_id] = state
        return path

    def _advance(self) -> list[Contact]:
        if self.done:
            return []
        asks: list[Contact] = []
        done = True
        for path in self._paths:
            if not path.done:
                self._advance_path(path, asks)
                done = done and path.done
        self.done = done
        return asks

    def _advance_path(self, path: _Path, asks: list[Contact]) -> None:
        """Fill the path's free slots from its k nearest hopeful contacts; done when all of those answered."""
        state = self._state
        hopeful = waiting = settled = 0
        for _, node_id, contact in path.shortlist:
            current = state[node_id]
            if current == _NEW:
                if self._asked >= MAX_ASKED:
                    continue
                waiting += 1
                if path.in_flight < path.alpha or settled >= SETTLED:
                    state[node_id] = _ASKED
                    path.in_flight += 1
                    self._asked += 1
                    asks.append(contact)
            elif current == _LATE:
                # Still awaited, but who would take its place is asked meanwhile.
                waiting += 1
                continue
            elif current == _ASKED:
                waiting += 1
            elif current == _ANSWERED:
                settled += hopeful == settled
            else:
                continue
            hopeful += 1
            if hopeful >= self.k:
                break
        path.done = not waiting
