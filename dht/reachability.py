"""What others see of us: our address as they see it, and whether strangers can reach us.

Decides when the answers of peers agree, when a node is behind an address translator (NAT), when it is unreachable,
and what its operator should do. Leaves asking to `endpoint`. Pure.

Peers tell a node from where its datagrams come; the majority of places is believed. Whether strangers get through
is another question: a translator lets in those whom the node has written to, so a peer is asked to have a third one
call. Sources: RFC 5389 (STUN: ask others how they see you), RFC 5780, section 4.4 (have another address send).
"""

from __future__ import annotations

from collections import Counter

from .aging import Aging
from .contact import Address, address_text, group
from .errors import LocalError

UNKNOWN, DIRECT, MAPPED, UNREACHABLE = "unknown", "direct", "mapped", "unreachable"
# Places whose word counts; the median of 33 bears 16 liars, as for clocks.
MAX_TELLERS = 33
# Fewer agreeing places than this say nothing.
MIN_AGREEING = 3
# Calls back that were promised and did not come until we say that nobody gets through: one may be lost, or a lie.
MIN_MISSED = 3
# A call of a stranger counts as proof for this long: translators forget in minutes (RFC 4787, REQ-5: two at least).
PROOF_S = 600.0


class UnreachableError(LocalError):
    """Others cannot reach this node, so it cannot serve; the message says what to do."""


class Reachability:
    """What one endpoint has learned of itself."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._told: Aging[object, Address] = Aging()
        # What each of them said last, also of those who share a place and so a voice.
        self._said: Aging[Address, Address] = Aging()
        self._reached_s = self._knocked_s = float("-inf")
        self._missed = self._shut_out = 0

    def told(self, by: Address, seen: Address) -> None:
        """A peer tells where our datagrams come from; of one place the last word counts."""
        place = group(by, self._profile)
        self._told.pop(place, None)
        self._told[place] = seen
        if len(self._told) > MAX_TELLERS:
            self._told.pop_oldest()
        self._said.pop(by, None)
        self._said[by] = seen
        if len(self._said) > MAX_TELLERS:
            self._said.pop_oldest()

    def forget(self) -> None:
        """Our address is another one: what was learned of the former one is void."""
        self.forget_told()
        self._reached_s = self._knocked_s = float("-inf")
        self._missed = self._shut_out = 0

    def forget_told(self) -> None:
        """Where others see us is to be told anew."""
        self._told.clear()
        self._said.clear()

    def says(self, by: Address) -> Address | None:
        """What this peer said last."""
        return self._said.get(by)

    def reached(self, now_s: float) -> None:
        """A stranger, to whom we never wrote, got through."""
        self._reached_s = now_s
        self._missed = 0

    def missed(self, now_s: float) -> None:
        """A call back was promised, and nobody came."""
        if self._reached_s < now_s - PROOF_S:
            self._missed += 1

    def acquit(self) -> None:
        """Knocks got through, and no call that was promised failed to come.

        Where many nodes start together, a stranger who is to call may meet us on another way first, and is none then.
        """
        self._missed = 0

    def knocked(self, now_s: float) -> None:
        """Somebody got through from a port that we never wrote to."""
        self._knocked_s = now_s
        self._shut_out = 0

    def shut_out(self, knocks: int) -> None:
        """So many knocks were promised, and none got through.

        A stranger's call says nothing against that: a translator may know it from a run before this one.
        """
        self._shut_out += knocks

    @property
    def observed(self) -> Address | None:
        """Our address as more than half of those who told see it; None while too few agree."""
        if not self._told:
            return None
        address, votes = max(sorted(Counter(self._told.values()).items()), key=lambda each: each[1])
        return address if votes >= MIN_AGREEING and 2 * votes > len(self._told) else None

    @property
    def likely(self) -> Address | None:
        """Our address as most of those who told see it, however few they are; for who has nothing better to go by."""
        return max(sorted(Counter(self._told.values()).items()), key=lambda each: each[1], default=(None, 0))[0]

    def verdict(self, own: Address, now_s: float) -> str:
        """`direct`, `mapped` (reached through a translator), `unreachable`, or `unknown` so far."""
        if self._missed >= MIN_MISSED or self._shut_out >= MIN_MISSED:
            return UNREACHABLE
        if max(self._reached_s, self._knocked_s) < now_s - PROOF_S:
            return UNKNOWN
        observed = self.observed
        return MAPPED if observed is not None and observed != own else DIRECT

    def advice(self, own: Address) -> str:
        """What to do about being unreachable; for people, who are told as well what only a few peers say."""
        told = list(self._told.values())
        host, votes = max(sorted(Counter(host for host, _ in told).items()), key=lambda each: each[1], default=("", 0))
        ports = sorted({port for at, port in told if at == host})
        behind = seen = ""
        if told:
            who = "others see" if votes >= MIN_AGREEING else f"{votes} of {len(told)} who were asked see"
            some = ", ".join(map(str, ports[:2]))
            several = f"{host} under several ports ({some}, ...)" if len(ports) > 1 else ""
            seen = f"; {who} it as {several or address_text((host, ports[0]))}"
            behind = " behind an address translator (NAT)" if (host, ports) != (own[0], [own[1]]) else ""
        # Others know a node by where its datagrams come from: a port that changes on the way cannot be forwarded.
        outwards = "; outwards as well as inwards" if ports not in ([], [own[1]]) else ""
        return (
            f"nobody can reach UDP {address_text(own)} unasked{behind}{seen}: forward this UDP port under the same "
            f"number ({own[1]} to {own[1]}, no other{outwards}) to this machine in the router or firewall and set "
            "advertise to the address that others see, or run as a client, which needs no open port"
        )
