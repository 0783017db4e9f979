"""All peers and sessions of one endpoint: answering strangers, proving, forgetting.

Decides when a HELLO is answered, which session is believed and which is a peer's present one, and who is lost. Leaves
handshakes that we begin to `greetings`, what the messages say to `handshake`, and requests to `endpoint`. Every table
here is bounded; a half-open session becomes a peer's only when a genuine datagram under its key has come from its
address.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import TYPE_CHECKING

from . import datagram, wire
from .aging import Aging
from .contact import Address, admits, group, intern_address
from .errors import LocalError
from .greetings import Greetings
from .handshake import Handshaker, Member, SessionKeys
from .limits import LIMITS, Bucket, Places
from .peers import FAILURES_UNTIL_LOST, MIN_HEDGE_MS, NOWHERE, Pace, Peer, Session

if TYPE_CHECKING:
    from .endpoint import Endpoint

# Lookups leave a lost address alone for this long, however often others still name it.
LOST_MEMORY_S = 30.0
MAX_LOST = 1_024
# A peer that says it does not know a session is believed at most this often.
RESET_INTERVAL_S = 1.0
# Sessions: 11 overlays x about 130 contacts, doubled; half-open ones live for two hard time-outs.
SESSION_LIMIT = 4_096
MAX_HALF_OPEN = 1_024
HALF_OPEN_S = 4.0
SESSION_IDLE_S = 1_800.0
MAX_PINGS_PER_REVIEW = 8
# How often all peers are gone through: idle times are counted in quarters of an hour, and with several hundred peers
# this was half of what an idle node does.
REVIEW_S = 60.0
# Keys of former peers whose entity is remembered, to know whose a record is that another brings: 2 MB, and all of a
# large network.
MAX_ENTITIES = 16_384


class Sessions:
    """Peers by address, sessions by the number that we gave them."""

    def __init__(self, endpoint: Endpoint, shaker: Handshaker, session_limit: int, liveness_idle_ms: int) -> None:
        self.peers: dict[Address, Peer] = {}
        self.by_number: dict[int, Session] = {}
        self.greetings = Greetings(self, endpoint, shaker)
        self.pace = Pace()
        self._endpoint = endpoint
        self._shaker = shaker
        self._session_limit = session_limit
        self._liveness_idle_s = liveness_idle_ms / 1_000
        self._limits = LIMITS[endpoint.profile]
        self._hellos = Places(self._limits.hellos)
        self._strays = Places(self._limits.strays)
        self._free_hellos = Bucket(self._limits.free_hellos, 0.0)
        # By the number that we gave them: when each was opened.
        self._half_open: Aging[int, float] = Aging()
        self._review_s = 0.0
        self._lost: Aging[Address, float] = Aging()
        self._entities: dict[bytes, str] = {}
        # Who was silent in an earlier run: no less asked, but not waited for where another one can be asked.
        self.suspects: Container[Address] = ()
        self.known_before: Callable[[Address], SessionKeys | None] | None = None
        """A simulator's word on sessions that stood before its run began; live, nobody has one."""

    def peer_at(self, address: Address) -> Peer:
        """The peer at an address, met or not; at the bound the longest silent ones are forgotten."""
        peer = self.peers.get(address)
        if peer is not None:
            return peer
        if not admits(address[0], self._endpoint.profile):
            raise LocalError(f"{address[0]} is no address for a network of profile {self._endpoint.profile!r}")
        if len(self.peers) >= self._session_limit:
            idle = sorted((each.heard_s, each.address) for each in self.peers.values() if each.is_idle)
            for _, idle_address in idle[: self._session_limit // 8 + 1]:
                self.drop(self.peers[idle_address])
                self._endpoint.counters["sessions-evicted"] += 1
        address = intern_address(address)
        peer = self.peers[address] = Peer(address, self._endpoint.time())
        return peer

    def entity_of(self, public_key: bytes) -> str | None:
        """Whose key this is, if its holder was met and proved it."""
        entity = self._entities.get(public_key)
        if entity is None:
            members = (peer.member for peer in self.peers.values())
            entity = next((each.entity for each in members if each is not None and each.public_key == public_key), None)
            if entity is not None:
                self._remember_entity(public_key, entity)
        return entity

    def _remember_entity(self, public_key: bytes, entity: str) -> None:
        self._entities[public_key] = entity
        if len(self._entities) > MAX_ENTITIES:
            del self._entities[next(iter(self._entities))]

    def drop(self, peer: Peer) -> None:
        """Forget a peer and its sessions."""
        self._forget_sessions(peer)
        self.peers.pop(peer.address, None)
        if peer.member is not None:
            self._remember_entity(peer.member.public_key, peer.member.entity)

    def clear(self) -> None:
        """Forget everybody."""
        self.by_number.clear()
        self._half_open.clear()
        self.greetings.clear()
        self.peers.clear()

    def begin_anew(self) -> None:
        """Our address is another one: others know our sessions at the former, and who was silent may not have been."""
        self._lost.clear()
        self.known_before = None
        for peer in self.peers.values():
            peer.failures = 0
            self._forget_sessions(peer)
            if peer.calls:
                peer.doubted = True  # what is under way is sent again as soon as a session stands
                self.greet(peer)

    # -- liveness ------------------------------------------------------------------------------------

    def heard(self, peer: Peer) -> None:
        """A genuine datagram: the peer is alive."""
        peer.heard_s = self._endpoint.time()
        if peer.failures:
            self.found(peer)

    def found(self, peer: Peer) -> None:
        """Who was silent is not."""
        peer.failures = 0
        self._lost.pop(peer.address, None)

    def failed(self, peer: Peer, weight: int) -> None:
        """No sign of life: ask once more, or tell all overlays that the peer is lost."""
        endpoint = self._endpoint
        before = peer.failures
        peer.failures = before + weight
        if peer.failures >= FAILURES_UNTIL_LOST:
            self._lost[peer.address] = endpoint.time() + LOST_MEMORY_S
            if len(self._lost) > MAX_LOST:
                self._lost.pop_oldest()
            if before < FAILURES_UNTIL_LOST:  # else nobody has heard from there since all tables dropped it
                for overlay in endpoint.overlays.values():
                    overlay.lost(peer.address)
            if not peer.is_client:
                endpoint.reunion.lost(peer.address)
            endpoint.counters["peers-lost"] += before < FAILURES_UNTIL_LOST
        elif not peer.is_client:
            endpoint.check(peer.address)

    def is_lost(self, address: Address) -> bool:
        """Whether this address was found silent a moment ago."""
        until_s = self._lost.get(address) if self._lost else None
        if until_s is None:
            return False
        if until_s > self._endpoint.time():
            return True
        del self._lost[address]
        return False

    def usual_ms(self, peer: Peer) -> int:
        """How long an answer may take before another peer is asked, too."""
        return peer.soft_timeout_ms if peer.session is not None else self.pace.cold_timeout_ms

    def patience_ms(self, peer: Peer) -> int:
        """The same where nothing is lost by asking another one: whoever was silent already gets little of it."""
        if self.is_lost(peer.address):
            return 1
        usual_ms = self.usual_ms(peer)
        if peer.session is not None:
            return usual_ms
        if peer.address in self.suspects:
            usual_ms //= 3
        greeting = peer.greeting
        if greeting is not None:
            waited_ms = int((self._endpoint.time() - greeting.sent_s) * 1_000)
            usual_ms = 0 if greeting.attempts > 1 else usual_ms - waited_ms
        return max(MIN_HEDGE_MS, usual_ms)

    def silent(self) -> list[Address]:
        """Who was asked for so long that an answer would have come, and has not been heard at all."""
        return [
            peer.address
            for peer in self.peers.values()
            if peer.session is None
            and (peer.greeting is not None or self.is_lost(peer.address))
            and self.patience_ms(peer) <= MIN_HEDGE_MS
        ]

    # -- sessions with those whom we ask -------------------------------------------------------------

    def greet(self, peer: Peer) -> None:
        """Begin a handshake, unless one is on its way."""
        if peer.session is None and self.known_before is not None and (keys := self.known_before(peer.address)):
            self.resume(keys, peer.address)
        elif peer.greeting is None:
            self.greetings.begin(peer)

    def resume(self, keys: SessionKeys, address: Address) -> None:
        """Go on with a session that stood before."""
        self.establish(self.peer_at(address), keys)

    # -- datagrams without a session -----------------------------------------------------------------

    def shaken(self, type: int, tag: int, session: int, counter: int, data: bytes, address: Address) -> None:
        """One datagram of a handshake; its header is read, and nothing else is known of it."""
        counters = self._endpoint.counters
        if tag != self._shaker.network_tag or not datagram.genuine(data, self._shaker.network_key):
            counters["foreign"] += 1
            return
        body = data[datagram.HEADER_BYTES : -datagram.MAC_BYTES]
        if type >> 4 != datagram.VERSION:
            self._other_version(type, session, len(data), address)
        elif type == datagram.HELLO:
            self._hello(session, body, len(data), address)
        elif type == datagram.RESET:
            self._reset(session, counter, address)
        elif type in (datagram.WELCOME, datagram.COOKIE):
            self.greetings.answered(type, session, body, address)
        else:
            counters["unknown-type"] += 1

    def _other_version(self, type: int, session: int, size_bytes: int, address: Address) -> None:
        """Somebody greets in a version that we do not speak: say in fewer bytes which ones we do, not often."""
        endpoint = self._endpoint
        endpoint.counters["other-version"] += 1
        is_hello = type & 15 == datagram.HELLO & 15 and size_bytes == datagram.MAX_DATAGRAM_BYTES
        if is_hello and self._strays.take(group(address, endpoint.profile), endpoint.time()):
            key, tag = self._shaker.network_key, self._shaker.network_tag
            spoken = wire.pack([datagram.VERSION])
            endpoint.send(datagram.seal(datagram.VERSIONS, tag, session, 0, spoken, key), address)

    def stray(self, session: int, counter: int, address: Address) -> None:
        """A datagram of a session we do not have, after a restart perhaps: say so in fewer bytes, not often."""
        endpoint = self._endpoint
        endpoint.counters["unknown-session"] += 1
        if self._strays.take(group(address, endpoint.profile), endpoint.time()):
            key, tag = self._shaker.network_key, self._shaker.network_tag
            endpoint.send(datagram.seal(datagram.RESET, tag, session, counter, b"", key), address)

    def confirm(self, session: Session) -> Peer:
        """The first genuine datagram of a half-open session: its address is now proved."""
        self._half_open.pop(session.own_session, None)
        caller = session.peer
        assert caller.member is not None
        known = caller.address in self.peers
        peer = session.peer = self.peer_at(caller.address)
        self._adopt(peer, session, caller.member, caller.is_client)
        if not known:
            self._endpoint.reach.stranger()
        return peer

    def _hello(self, session: int, body: bytes, size_bytes: int, address: Address) -> None:
        endpoint = self._endpoint
        counters, now_s = endpoint.counters, endpoint.time()
        if not admits(address[0], endpoint.profile):
            counters["address-not-admitted"] += 1
            return
        if size_bytes != datagram.MAX_DATAGRAM_BYTES:
            # Only a full datagram pays for the WELCOME it draws.
            counters["short-hello"] += 1
            return
        address = intern_address(address)
        if not self._hellos.take(group(address, endpoint.profile), now_s):
            counters["hello-limited"] += 1
            return
        demand = not self._free_hellos.take(self._limits.free_hellos, now_s)
        own_session = endpoint.rng.getrandbits(64)
        data, keys = self._shaker.answer(
            session,
            body,
            own_session,
            address,
            endpoint.now_ms(),
            demand_cookie=demand,
            read=partial(endpoint.answering.early, address),
        )
        if keys is not None:
            caller = Peer(address, now_s)
            caller.member, caller.is_client = keys.member, keys.is_client
            self.by_number[own_session] = Session(keys, caller)
            self._half_open[own_session] = now_s
            if len(self._half_open) > MAX_HALF_OPEN:
                oldest, _ = self._half_open.pop_oldest()
                self.by_number.pop(oldest, None)
                counters["half-open-dropped"] += 1
        endpoint.send(data, address)

    def _reset(self, session_number: int, counter: int, address: Address) -> None:
        """A peer may not know our session any more. Nobody signed that: greet again, and keep what we have."""
        now_s = self._endpoint.time()
        peer = self.peers.get(address)
        session = peer.session if peer is not None else None
        if (
            peer is None
            or session is None
            or session.send_session != session_number
            or not session.counter - datagram.REPLAY_WINDOW < counter <= session.counter
        ):
            self._endpoint.counters["unfounded-reset"] += 1
        elif peer.greeting is None and now_s - peer.reset_s >= RESET_INTERVAL_S:
            peer.reset_s = now_s
            peer.doubted = True
            self.greet(peer)

    # -- sessions ------------------------------------------------------------------------------------

    def establish(self, peer: Peer, keys: SessionKeys) -> Session:
        """A session under these keys, the peer's present one from now on."""
        session = Session(keys, peer)
        self._adopt(peer, session, keys.member, keys.is_client)
        return session

    def _adopt(self, peer: Peer, session: Session, member: Member, is_client: bool) -> None:
        if peer.member is not None and (
            peer.member.public_key != member.public_key or peer.member.issuer_nonce != member.issuer_nonce
        ):
            self._replace(peer)
        peer.member = member
        peer.is_client = is_client
        self.heard(peer)
        if peer.former is not None:
            self.by_number.pop(peer.former.own_session, None)
        peer.former, peer.session = peer.session, session
        self.by_number[session.own_session] = session
        self._endpoint.calls.transmit_waiting(peer)

    def _replace(self, peer: Peer) -> None:
        """Another member answers at this address: what we knew of the former one is void."""
        if peer.member is not None:
            self._remember_entity(peer.member.public_key, peer.member.entity)
        self._endpoint.counters["peers-replaced"] += 1
        for overlay in self._endpoint.overlays.values():
            overlay.lost(peer.address)
        peer.met = NOWHERE
        peer.rtt_ms = -1.0
        self._forget_sessions(peer)

    def _forget_sessions(self, peer: Peer) -> None:
        for session in (peer.session, peer.former):
            if session is not None:
                self.by_number.pop(session.own_session, None)
        peer.session = peer.former = None

    def upkeep(self) -> None:
        """Drop what is half-open, expired or idle for too long; ping a few of those that are silent."""
        endpoint = self._endpoint
        now_s, now_ms = endpoint.time(), endpoint.now_ms()
        while self._half_open and next(iter(self._half_open.values())) < now_s - HALF_OPEN_S:
            number, _ = self._half_open.pop_oldest()
            self.by_number.pop(number, None)
        if now_s < self._review_s:
            return
        silent: list[tuple[float, Address]] = []
        quiet_s = now_s - min(self._liveness_idle_s, SESSION_IDLE_S)
        for peer in list(self.peers.values()):
            member = peer.member
            if (peer.heard_s > quiet_s and member is not None and member.expires_ms > now_ms) or not peer.is_idle:
                continue
            if member is None or member.expires_ms <= now_ms or peer.heard_s < now_s - SESSION_IDLE_S:
                self.drop(peer)
            elif not peer.is_client and peer.heard_s < now_s - self._liveness_idle_s and self._is_neighbour(peer):
                silent.append((peer.heard_s, peer.address))
        for _, address in sorted(silent)[:MAX_PINGS_PER_REVIEW]:
            endpoint.check(address)
        if len(silent) <= MAX_PINGS_PER_REVIEW:
            self._review_s = now_s + min(REVIEW_S, self._liveness_idle_s / 4)

    def _is_neighbour(self, peer: Peer) -> bool:
        """Whether silence here matters before a lookup meets it: where our records lie, in any overlay.

        Contacts elsewhere are proved by each bucket's refresh; pinging them too was two thirds of an idle network.
        """
        return any(overlay.is_neighbour(peer) for overlay in self._endpoint.overlays.values())
