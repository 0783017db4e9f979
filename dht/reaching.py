"""Finding out how others see this node, and helping others to find out: the driver of `reachability`.

Decides whom to ask, and how often this node calls strangers on behalf of others. Leaves what the answers mean to
`reachability`. A node is only ever called at the address that it has proved by its handshake, so nobody can have
datagrams sent to a third party; each peer may ask for a few calls a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from . import datagram
from .answering import CALL, CALL_BACK, KNOCK, PING, TELL_ADDRESS
from .calls import into
from .contact import Address, admits, pack_address, unpack_address
from .errors import DhtError, LocalError, RemoteError
from .limits import Allowance, Places
from .peers import Call, Peer
from .reachability import MIN_MISSED, UNREACHABLE, Reachability, UnreachableError
from .reply import Reply
from .vitals import VITALS_BYTES

if TYPE_CHECKING:
    from .endpoint import Endpoint

# Peers that are asked at once, for the majority of their answers.
ASKED_PEERS = 8
# A call back is two hops and a handshake: twice the time that a lookup gives a stranger, and some.
CALL_BACK_S = 3.0
# A knock is sent before it is promised: this is how far it may lag behind the promise.
KNOCK_S = 1.0
# Strangers that should call in one examination: one more than must fail to come before we say that nobody can.
ENOUGH_CALLS = MIN_MISSED + 1
# Calls that one place may ask of us, and that we make for all together.
CALLS_PER_PLACE = Allowance(0.1, 4)
# Knocks from ports of their own that peers are asked for in one examination, by all of them together.
KNOCKS = 6
# What one place may have us knock, a datagram to itself each time: a whole examination, three times over.
KNOCKS_PER_PLACE = Allowance(1.0, 24)
# Peers that are asked, one after the other, to call another one: who knows it already is no stranger to it.
HELPERS = 3
# Peers that are kept from forgetting us; a tick is 15 s, and translators forget after 30 s at the earliest.
MAX_KEPT_OPEN = 16
KEEP_OPEN_IDLE_S = 9.0
# When a node first looks from where it is seen, once it has peers to ask, and how often again.
FIRST_LOOK_S = 60.0
LOOK_AGAIN_S = 1_800.0
# Whom a node asks each time that follows its address behind a translator: one may have gone, and one lie.
WATCHERS = 3
# All are asked anew at most so often, whatever is said: one who says something else each time must not keep us asking.
DOUBT_AGAIN_S = 6.0


class Reaching:
    """One endpoint's questions about itself."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.state = Reachability(endpoint.profile)
        self._endpoint = endpoint
        self._places = Places(CALLS_PER_PLACE)
        self._kept_open: dict[Address, None] = {}
        self._next_look_s = -1.0
        # Whether what one peer says of another address than before is looked into at once.
        self.follows = False
        self._doubted_s = float("-inf")
        # One examination at a time: two would take each other's calls and knocks.
        self._examining = asyncio.Lock()
        # There while somebody is expected to call, or to knock.
        self._came: asyncio.Event | None = None
        self._knocks: asyncio.Event | None = None
        self._knock_places = Places(KNOCKS_PER_PLACE)
        self._knocking: set[asyncio.Task[None]] = set()

    # -- about ourselves -----------------------------------------------------------------------------

    async def examine(self) -> str:
        """Ask peers how they see us and have strangers call; the verdict."""
        async with self._examining:
            peers = self._some_peers()
            await self.learn()
            try:
                missed, knocked = await asyncio.gather(self._have_called(peers), self._have_knocked(peers))
                if knocked and not missed:
                    self.state.acquit()
            finally:
                self._came = self._knocks = None
        return self.verdict()

    async def _have_called(self, peers: list[Peer]) -> int:
        """Have strangers call; how many promised to, where none came."""
        came = self._came = asyncio.Event()
        promised = await self._promises(peers, CALL_BACK, ENOUGH_CALLS)
        if promised:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), CALL_BACK_S)
        if came.is_set():
            return 0
        for _ in range(promised):
            self.state.missed(self._endpoint.loop.time())
        return promised

    async def _have_knocked(self, peers: list[Peer]) -> bool:
        """Have peers knock from ports that we never wrote to; whether a knock came.

        Translators let in whom a node has written to, also in a run before this one: who is no stranger to the
        translator proves nothing, and in a small network there are no others.
        """
        knocked = self._knocks = asyncio.Event()
        promised = await self._promises(peers, KNOCK, KNOCKS)
        if promised and not knocked.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(knocked.wait(), KNOCK_S)
            if not knocked.is_set():
                self.state.shut_out(promised)
        return knocked.is_set()

    async def _promises(self, peers: list[Peer], kind: int, wanted: int) -> int:
        """Ask for so many calls or knocks, several of a peer where there are few, or silence would prove nothing."""
        times = -(-wanted // len(peers)) if peers else 0
        asked = (self._endpoint.ask(peer.address, kind, b"") for peer in peers for _ in range(times))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return sum(not isinstance(answer, BaseException) for answer in answers)

    async def learn(self) -> None:
        """Ask peers how they see us, and nothing else."""
        await asyncio.gather(*map(self._ask_how_seen, self._some_peers()), return_exceptions=True)

    def verdict(self) -> str:
        """What is known so far: `unknown`, `direct`, `mapped` or `unreachable`."""
        return self.state.verdict(self._endpoint.own_address, self._endpoint.loop.time())

    def require(self) -> None:
        """Refuse to serve when nobody gets through: UnreachableError says what to do."""
        if self.verdict() == UNREACHABLE:
            raise UnreachableError(self.state.advice(self._endpoint.own_address))

    def keep_open(self, address: Address) -> None:
        """Ping this peer often enough that a translator on the way does not forget us."""
        if address not in self._kept_open and len(self._kept_open) >= MAX_KEPT_OPEN:
            raise LocalError(f"{MAX_KEPT_OPEN} paths are kept open already; let one go")
        self._kept_open[address] = None

    def let_go(self, address: Address) -> None:
        """The path to this peer need not be kept open any more."""
        self._kept_open.pop(address, None)

    def tick(self, now_s: float) -> None:
        """Keep paths open, and look now and then from where we are seen."""
        for address in self._kept_open:
            peer = self._endpoint.peer(address)
            if peer is None or peer.heard_s < now_s - KEEP_OPEN_IDLE_S:
                self._endpoint.check(address)
        if self._next_look_s < 0:
            self._next_look_s = now_s + FIRST_LOOK_S
        elif now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_AGAIN_S
            self._look(WATCHERS)

    def look_out(self) -> None:
        """Where a translator may be before us: ask a few peers from where they see us; it keeps the ways open, too."""
        if self.state.observed != self._endpoint.own_address:
            self._look(WATCHERS)

    def _look(self, most: int) -> None:
        endpoint = self._endpoint
        for peer in self._some_peers()[:most]:
            with contextlib.suppress(LocalError):  # more calls are open than may be: another look comes
                endpoint.call(peer.address, endpoint.network_tag, PING, TELL_ADDRESS, self._heard_how_seen)

    def stranger(self) -> None:
        """Somebody whom we never wrote to has begun with us, and proved its address."""
        if self._came is not None:
            self._came.set()
        self.state.reached(self._endpoint.loop.time())
        self._endpoint.counters["strangers"] += 1

    def awaits_knock(self, address: Address) -> bool:
        """Whether a knock from there would prove anything: it was asked for, and we never wrote to this address."""
        return self._knocks is not None and address not in self._endpoint.sessions.peers

    def knocked(self) -> None:
        """A peer got through from a port that we never wrote to."""
        if self._knocks is not None:
            self._knocks.set()
        self.state.knocked(self._endpoint.loop.time())

    def _some_peers(self) -> list[Peer]:
        endpoint = self._endpoint
        servers = [each for each in endpoint.sessions.peers.values() if each.session is not None and not each.is_client]
        return sorted(servers, key=lambda each: (-each.heard_s, each.address))[:ASKED_PEERS]

    async def _ask_how_seen(self, peer: Peer) -> None:
        endpoint = self._endpoint
        future: asyncio.Future[bytes] = endpoint.loop.create_future()
        endpoint.call(peer.address, endpoint.network_tag, PING, TELL_ADDRESS, into(future))
        self._take_seen(peer, await future)

    def _heard_how_seen(self, call: Call, error: DhtError | None, body: bytes) -> None:
        if error is None:
            with contextlib.suppress(RemoteError):
                self._take_seen(call.peer, body)

    def _take_seen(self, peer: Peer, body: bytes) -> None:
        # An older peer ends with its vitals, and so tells nothing.
        if len(body) > VITALS_BYTES:
            seen, said = unpack_address(body[VITALS_BYTES:]), self.state.says(peer.address)
            now_s = self._endpoint.loop.time()
            # By hosts alone: a translator may have a port for each whom we write to.
            changed = said is not None and said[0] != seen[0]
            if self.follows and changed and now_s >= self._doubted_s + DOUBT_AGAIN_S:
                self._doubted_s = now_s
                # What the others said is of before, and would outvote what is so now.
                self.state.forget_told()
                self._look(ASKED_PEERS)
            before = self.state.observed
            self.state.told(peer.address, seen)
            if before is not None and self.state.observed not in (None, before):
                self._endpoint.counters["address-changed"] += 1

    # -- for others ----------------------------------------------------------------------------------

    def pass_on(self, peer: Peer, reply: Reply) -> None:
        """A peer wants to be called by somebody it never wrote to: ask one of ours to do it."""
        endpoint = self._endpoint
        if not self._places.take(peer.address, endpoint.loop.time()):
            reply.busy(60_000)
            return
        others = [each for each in self._some_peers() if each is not peer]
        if not others:
            reply.refuse("nobody here to call you")
            return
        helpers = endpoint.rng.sample(others, min(HELPERS, len(others)))

        def ask_next() -> None:
            endpoint.call(helpers.pop().address, endpoint.network_tag, CALL, pack_address(peer.address), asked)

        def asked(call: Call, error: DhtError | None, body: bytes) -> None:
            if error is None:
                reply()
            elif helpers and endpoint.is_open:
                ask_next()
            else:
                reply.refuse("nobody would call you")

        ask_next()

    def knock(self, peer: Peer, reply: Reply) -> None:
        """A peer wants a datagram from a port that it never wrote to; it goes where its session is proved to be."""
        endpoint = self._endpoint
        if not self._knock_places.take(peer.address, endpoint.loop.time()):
            reply.busy(60_000)
            return
        task = endpoint.loop.create_task(self._knock(peer, reply), name="knock")
        self._knocking.add(task)
        task.add_done_callback(self._knocking.discard)

    async def _knock(self, peer: Peer, reply: Reply) -> None:
        endpoint = self._endpoint
        try:
            transport, _ = await endpoint.loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=(endpoint.source_host(peer.address), 0)
            )
        except OSError as error:
            reply.refuse(f"no port to call from: {error.strerror}")
            return
        session = peer.session
        if session is None:
            reply.refuse("there is no session any more")
        else:
            session.counter += 1
            knock = datagram.seal(
                datagram.REQUEST, endpoint.network_tag, session.send_session, session.counter, b"", session.send_key
            )  # fmt: skip
            transport.sendto(knock, peer.address)
            reply()
        transport.close()

    def call(self, body: bytes, reply: Reply) -> None:
        """A peer vouches for an address that it has a session with: greet it, unless we know it."""
        endpoint = self._endpoint
        address = unpack_address(body)
        if not admits(address[0], endpoint.profile):
            reply.refuse("no address of this network")
        elif not self._places.take(reply.peer.address, endpoint.loop.time()):
            reply.busy(60_000)
        elif endpoint.peer(address) is not None:
            reply.refuse("no stranger to that one")
        else:
            endpoint.check(address)
            reply()
