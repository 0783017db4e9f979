"""One iterative lookup as a state machine: contacts and answers in, contacts to ask out.

Decides whom to ask next, when the lookup is over and what it found. Leaves sending, timers and what an
answer means to `overlay`. No clock, no socket, no exception for what a peer may say.

A contact's states:

    new --ask--> asked --slow--> late --overdue--> overdue
    asked, late, overdue --answer--> answered
    asked, late, overdue --time-out, too busy--> silent
    asked, late, overdue --refusal, nonsense--> failed

    new --all who named it have lied--> doubted --somebody else names it--> new

While late, its slot is free for another question; once overdue, the lookup does not wait for it either. Who is late,
overdue or silent at the end may be there all the same: what was found is then not known to be all there is.

Sources: Maymounkov and Mazieres 2002 (alpha in flight; the k nearest must have answered); Baumgart and Mies
2007, S/Kademlia (disjoint paths: no contact is asked on two paths); libtorrent's traversal (a slow peer's
slot is given to the next while its answer still counts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from .blame import HOSTILE_BLAME, SILENT_BLAME, Blame
from .candidates import ANSWERED, ASKED, FAILED, LATE, NEW, OVERDUE, SILENT, Candidate, Path
from .contact import Contact

# Questions in flight; the paper has 3, libtorrent 5.
ALPHA = 4
# Once so many of the nearest have answered, nobody nearer is expected, and the rest of the k are asked at once, as in
# the paper's section 2.3: no question more in a clean network (21.7 of 600 nodes either way), and one wait for all
# who are silent instead of one after the other.
SETTLED = 4
# Questions one lookup may ask in all; a clean lookup among 10,000 nodes asks about 40.
MAX_ASKED = 160
# Contacts beyond the k nearest that a lookup asks ahead, at most: what a fifth of k and its own fifth would need.
MAX_SPARES = 8
# Contacts one path may remember: a colluder's answers must not grow without bound.
MAX_CANDIDATES = 400

# In the place of a list of namers for each, while nobody needs it; never written to.
_UNTOLD: list[Candidate] = []
_distance_of = attrgetter("distance")

class Lookup:
    """The search for the k contacts nearest to a target, or for the first value on the way."""

    __slots__ = (
        "_admit",
        "_asked",
        "_blame",
        "_candidates",
        "_paths",
        "alpha",
        "done",
        "hostile",
        "k",
        "silences",
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
        # Questions of this lookup that were not answered in time.
        self.silences = 0
        self.value: object = None
        self.done = False
        self.hostile: list[Contact] = []
        self._admit = admit
        self._asked = 0
        # By node id; nobody stands at our own, so that nobody needs to tell us about ourselves.
        self._candidates: dict[bytes, Candidate | None] = {}
        self._blame = Blame(self._candidates)
        self._paths = [Path(max(1, alpha // disjoint)) for _ in range(max(1, disjoint))]
        known = self._candidates
        if own_id is not None:
            known[own_id] = None
        nearest = sorted(seeds, key=lambda contact: contact.number ^ target)
        index, paths = 0, len(self._paths)
        for contact in nearest:
            if contact.node_id not in known:
                path = self._paths[index % paths]
                index += 1
                distance = contact.number ^ target
                candidate = known[contact.node_id] = Candidate(contact, distance, path, None)
                path.distances.append(distance)
                path.candidates.append(candidate)

    def start(self) -> list[Contact]:
        """The first contacts to ask; none when the lookup is over before it began."""
        return self._advance()

    def learn(self, contacts: Iterable[Contact]) -> bool:
        """More contacts that nobody answers for, on the first path; whether any was new. `start` asks them."""
        path, known = self._paths[0], self._candidates
        new = [each for each in contacts if each.node_id not in known]
        for each in new:
            candidate = known[each.node_id] = Candidate(each, each.number ^ self.target, path, None)
            path.insert(candidate)
        if new:
            path.limit = -1
            path.done = self.done = False
        return bool(new)

    def answered(self, contact: Contact, contacts: Sequence[Contact]) -> list[Contact]:
        """A good answer, on time or late; whom to ask now."""
        namer = self._close(contact, ANSWERED)
        if namer is None:
            return []
        path, known, target, admit = namer.path, self._candidates, self.target, self._admit
        new = [each for each in contacts if each.node_id not in known]
        blame = self._blame
        blame.told(namer, contacts)
        for each in new:
            if each.node_id in known or len(path.candidates) >= MAX_CANDIDATES:
                continue
            if admit is None or admit(each):
                namers = _UNTOLD if blame.scores is None else [namer]
                candidate = Candidate(each, each.number ^ target, path, namers)
                known[each.node_id] = candidate
                path.insert(candidate)
        if path.limit >= 0 and path.waiting and blame.scores is None:
            # Nobody nearer was named: the others who were asked are awaited, as before.
            return []
        return self._advance()

    def slow(self, contact: Contact) -> list[Contact]:
        """No answer within the soft time-out: its slot is free, its answer still counts."""
        candidate = self._candidates.get(contact.node_id)
        if candidate is None or candidate.state != ASKED or self.done:
            return []
        candidate.state = LATE
        candidate.path.in_flight -= 1
        candidate.path.limit = -1
        self._hurry(candidate.path)
        return self._advance()

    def overdue(self, contact: Contact) -> list[Contact]:
        """So late that nobody should wait for it; its answer would still count."""
        candidate = self._candidates.get(contact.node_id)
        if candidate is None or self.done or candidate.state not in (ASKED, LATE):
            return []
        if candidate.state == ASKED:
            candidate.path.in_flight -= 1
            self._hurry(candidate.path)
        candidate.state = OVERDUE
        candidate.path.limit = -1
        self._blame.judge(candidate, SILENT_BLAME)
        return self._advance()

    def failed(self, contact: Contact, *, hostile: bool = False, silent: bool = False) -> list[Contact]:
        """A refusal, or (`silent`) no answer, or (`hostile`) one that no honest peer gives; whom to ask now."""
        if hostile:
            self.hostile.append(contact)
        candidate = self._close(contact, SILENT if silent else FAILED)
        if candidate is None:
            return []
        self._blame.judge(candidate, HOSTILE_BLAME if hostile else SILENT_BLAME)
        return self._advance()

    def found(self, value: object) -> None:
        """A valid value: the lookup is over at once."""
        if not self.done:
            self.value = value
            self.done = True

    def result(self) -> list[Contact]:
        """The nearest contacts that answered, nearest first, at most k."""
        answered = [each for path in self._paths for each in path.candidates if each.state == ANSWERED]
        if len(self._paths) > 1:
            answered.sort(key=_distance_of)
        return [each.contact for each in answered[: self.k]]

    def silent(self) -> list[Contact]:
        """Who was asked and did not answer, nearest first."""
        mute = [each for path in self._paths for each in path.candidates if each.state in (LATE, OVERDUE, SILENT)]
        return [each.contact for each in sorted(mute, key=_distance_of)]

    def forget(self) -> None:
        """Let go of all contacts, once nobody asks any more: they know their path, so nothing else would free them."""
        for path in self._paths:
            path.candidates.clear()
        self._candidates.clear()
        self._blame.forget()
        self._admit = None

    def path_of(self, contact: Contact) -> int:
        """On which of the disjoint paths this contact is; -1 when on none."""
        candidate = self._candidates.get(contact.node_id)
        return -1 if candidate is None else self._paths.index(candidate.path)

    @property
    def asked(self) -> int:
        """How many questions were asked."""
        return self._asked

    def _hurry(self, path: Path) -> None:
        """Somebody is silent, and others may be: ask more of them at once, so that their waits are one."""
        self.silences += 1
        path.alpha = self.k if self.alpha >= ALPHA else path.alpha + 1

    def _close(self, contact: Contact, state: int) -> Candidate | None:
        """An end of a question that was open."""
        candidate = self._candidates.get(contact.node_id)
        if candidate is None or self.done:
            return None
        path, before = candidate.path, candidate.state
        if before == ASKED:
            path.in_flight -= 1
        elif before != LATE and before != OVERDUE:
            return None
        if state != ANSWERED or before != ASKED:
            path.limit = -1
        elif candidate.distance <= path.limit:
            path.waiting -= 1
        candidate.state = state
        return candidate

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

    def _advance_path(self, path: Path, asks: list[Contact]) -> None:
        """Fill the path's free slots from its k nearest hopeful contacts; done when all of those answered."""
        candidates, index = path.candidates, path.judged
        while index < len(candidates) and path.settled < self.k:
            state = candidates[index].state
            if state == ANSWERED:
                path.settled += 1
            elif state != FAILED and state != SILENT:
                break
            index += 1
        path.judged = index
        hopeful = settled = path.settled
        waiting = 0
        while index < len(candidates) and hopeful < self.k:
            candidate = candidates[index]
            state = candidate.state
            index += 1
            if state == NEW:
                if self._asked >= MAX_ASKED:
                    continue
                waiting += 1
                if path.in_flight < path.alpha or settled >= SETTLED:
                    candidate.state = ASKED
                    path.in_flight += 1
                    self._asked += 1
                    asks.append(candidate.contact)
                else:
                    # No slot is free, and none becomes free farther on.
                    return
            elif state == ASKED:
                waiting += 1
            elif state == ANSWERED:
                settled += hopeful == settled
            else:
                # Late ones are still awaited, but who would take their place is asked meanwhile.
                waiting += state == LATE
                continue
            hopeful += 1
        path.waiting = waiting
        path.done = not waiting
        if waiting and self.silences and self.alpha >= ALPHA:
            self._ask_spares(path, index, asks)
        if settled >= SETTLED:
            path.limit = candidates[index - 1].distance if index else -1

    def _ask_spares(self, path: Path, index: int, asks: list[Contact]) -> None:
        """As many beyond the k nearest as were silent so far: who takes a silent one's place has answered by then."""
        spares = min(2 * self.silences, MAX_SPARES)
        for candidate in path.candidates[index:]:
            if not spares or self._asked >= MAX_ASKED:
                return
            if candidate.state == NEW:
                candidate.state = ASKED
                path.in_flight += 1
                self._asked += 1
                asks.append(candidate.contact)
            if candidate.state in (ASKED, ANSWERED):
                spares -= 1
