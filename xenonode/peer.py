"""One member on the network: its socket, an overlay for each dimension, the tries it holds, the adverts it verified.

XenoServers and XenoCorp are servers of the overlays; a client is a light query peer, which joins an overlay only
when a search needs it and holds nothing. Leaves what a role does with this to `node` and `client`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from ipaddress import ip_address

from dht.contact import Address, Contact
from dht.endpoint import Endpoint
from dht.errors import JoinError, LocalError
from dht.handshake import Member
from dht.identity import Signer
from dht.overlay import Overlay
from dht.patience import until_answered
from dht.udp import any_host
from summaries.holder import Holder
from summaries.schema import LOCATION, Schema
from summaries.trie import trie_key
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.entity import Credential, Trust
from xenonode.model.schema import PublishedSchema
from xenonode.search.adverts import Adverts
from xenonode.search.asking import Asker
from xenonode.search.growth import Growth
from xenonode.search.holding import TrieHolding, monotonic_ms
from xenonode.search.leaving import HandedOn, hand_on, held_rows
from xenonode.search.measuring import Measurer
from xenonode.search.news import News
from xenonode.search.placement import Placement
from xenonode.search.searching import Searcher

SERVING_ROLES = ("server", "corp")
"""Roles that hold parts of the overlays; a client's credential only lets it ask."""
KEPT_OPEN = 4
"""Seeds whose paths a client that goes on keeps open through a translator: a ping each in 15 s."""
LOGGER = logging.getLogger("xenonode.peer")
NEWS_ASKED_MAX = 2
REENTER_S = 15.0
EXTENSIONS_FILE = "schema-extensions"
"""In a member's state: what XenoCorp has added to the schema since the network was founded."""
MEMBERS_REMEMBERED_MAX = 65_536
"""As many as credentials; the nodes of a simulation share what each of them knows of the same member."""
SEEDS_MAX = 8
"""Addresses that a start tries at once, besides the network file's own seeds."""
MET_ASKED = 3
"""Servers that lead into a further overlay, besides the seeds: one may have left it, one may have died a moment ago."""


class Peer:
    """See the module. `await peer.start(...)`, then `search`, `placement(dimension)`; `await peer.close()`."""

    def __init__(
        self, env: Env, signer: Signer, credential: bytes, trust: Trust, published: PublishedSchema, *, client: bool
    ) -> None:
        self.env, self.trust, self.is_client = env, trust, client
        self._papers = signer, credential, published
        self.growth, self.leaf_capacity = Growth(published.schema, trust), published.leaf_capacity
        self.root_groups, self.tries = published.root_groups, dict(published.tries)
        self.endpoint = Endpoint(
            signer,
            credential,
            self._member,
            env.scheme,
            network_id=trust.network.network_id,
            now_ms=env.now_ms,
            rng=env.rng("endpoint"),
            client=client,
            profile=trust.network.profile,
            exchange=env.exchange,
        )
        self.adverts = Adverts(trust, self.schema, self.endpoint.contradictions.note_signed)
        self.asker = Asker(self, env)
        self.searcher = Searcher(
            self.endpoint, self.growth.searchable, self.adverts, self.asker, env, self._meet, self.root_groups,
            self.tries,
        )  # fmt: skip
        self.news = News(self.endpoint, self.growth, env, self._grown)
        if not client:
            Measurer(self.endpoint, env, trust.network.profile)
        self.on_growth: Callable[[], None] = lambda: None  # called when the schema has a new dimension
        self._informing: asyncio.Task[None] | None = None
        self._entering: list[asyncio.Task[None]] = []
        self._make_holder = self._holder  # one bound method for all dimensions
        self.holdings: dict[str, TrieHolding] = {}
        self._placements: dict[str, Placement] = {}
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._joined: dict[str, Placement] = {}
        self._seeds: list[Address] = []
        self._left: set[str] = set()
        self._leaving: dict[str, asyncio.Task[HandedOn]] = {}
        self.on_left: Callable[[list[str]], None] = lambda names: None  # keeps what is left for the next start
        self._guest: Peer | None = None  # asks in the dimensions that were left; open
        self._opening: asyncio.Task[Peer] | None = None

    @property
    def schema(self) -> Schema:
        """The newest schema that this node knows; adverts are published to all its dimensions."""
        return self.growth.newest

    async def start(self, udp: Address, known: Sequence[Address] = ()) -> None:
        """Open the socket; a server joins every dimension's overlay at once. Raises XenoError."""
        await self.open(udp, known)
        if not self.is_client:
            await self.join()

    async def open(self, udp: Address, known: Sequence[Address] = (), advertise: str = "") -> None:
        """Open the socket; `known` are servers that were met before. Raises XenoError.

        `advertise` is our address for others where that is not the socket's own: a router's that forwards its port.
        """
        try:
            await self.endpoint.open(*udp, advertise=advertise or None)
        except OSError as error:
            raise XenoError(
                f"UDP {udp[0]}:{udp[1]} cannot be opened: {error.strerror}",
                "another program may use this port: stop it, or set another udp = \"...\" in the configuration",
                "port_in_use",
            ) from error
        except LocalError as error:
            kind = "public addresses" if self.endpoint.profile == "public" else "private and loopback addresses"
            raise XenoError(
                str(error), f'this network is for {kind}: set udp = "HOST:{udp[1]}" to one of this machine', "address"
            ) from error
        seeds = [seed.pair for seed in self.trust.network.seeds]
        self._seeds = list(dict.fromkeys([*seeds, *known[:SEEDS_MAX]]))
        if self.is_client:
            for seed in self._seeds[:KEPT_OPEN]:
                self.endpoint.keep_open(seed)

    @property
    def seeds(self) -> list[Address]:
        """The network file's, and servers that were met before."""
        return list(self._seeds)

    @property
    def profile(self) -> str:
        """The network's: which addresses it admits."""
        return self.trust.network.profile

    async def meet_seeds(self) -> None:
        """Greet the seeds, before any overlay is joined; those that do not answer are left alone."""
        seeds = [seed for seed in self._seeds if seed != self.endpoint.address]
        await asyncio.gather(*map(self.endpoint.ping, seeds), return_exceptions=True)

    async def join(self) -> None:
        """Join every dimension's overlay. Raises XenoError where no seed answers; may be tried again."""
        names = [dimension.name for dimension in self.schema.dimensions if dimension.name not in self._left]
        joins = [self.placement(name) for name in names]
        for outcome in await asyncio.gather(*joins, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        if self._informing is None:
            self._informing = self.env.spawn(self.news.stay_informed(), "news of the schema")

    async def _meet(self) -> list[Address]:
        """Servers all over the location's overlay, for who wants to be measured from several sides."""
        placement = await self.placement(LOCATION)
        return [info.contact.address for info in placement.overlay.peers()]

    async def ask_for_news(self) -> None:
        """Ask one seed, or a server that was met before, whether the schema has grown."""
        asked = [self.env.spawn(self.news.ask(seed), "news of the schema") for seed in self._seeds[:NEWS_ASKED_MAX]]
        await until_answered(asked, lambda names: names is not None)

    def _grown(self, dimension: str) -> None:
        if not self.is_client and self._joining and dimension not in self._left:
            self._entering.append(self.env.spawn(self._enter_late(dimension), f"join {dimension}"))
        self.on_growth()

    async def _enter_late(self, dimension: str) -> None:
        """Join a dimension that the schema has gained, as soon as one of the seeds has heard of it, too."""
        while True:
            try:
                await self.placement(dimension)
                return
            except XenoError as error:
                LOGGER.info("the new dimension %s cannot be joined yet: %s", dimension, error)
            await asyncio.sleep(REENTER_S)

    def warm_start(self, dimension: str, contacts: Sequence[Contact]) -> None:
        """Take part in a dimension among contacts that are known to be true (a simulator's, never a datagram's)."""
        placement = self._joined[dimension] = self._place(dimension)
        placement.overlay.warm_start(contacts)

    # -- leaving one dimension ---------------------------------------------------------------------------

    @property
    def left(self) -> list[str]:
        """Dimensions of which this node holds no part, by its owner's wish."""
        return sorted(self._left)

    def stay_out(self, dimensions: Iterable[str]) -> None:
        """Before `join`: these were left in an earlier run."""
        self._left = {name for name in dimensions if name in self.schema.by_name}

    async def leave(self, dimension: str) -> HandedOn:
        """Hold no part of this dimension any more, once others have what was held; asking there goes on. XenoError.

        What a server asks in such a dimension, such as to hold its own advert, it asks as clients do, from a socket of
        its own: others lead nobody to a client. Once begun it is carried through, also where whoever asked for it waits
        no longer; who asks again waits for the same.
        """
        task = self._leaving.get(dimension)
        if task is None:
            placement, holding = self._joined.get(dimension), self.holdings.get(dimension)
            if placement is None or holding is None or dimension in self._left:
                held = ", ".join(sorted(set(self._joined) - self._left))
                raise XenoError(f"this node holds no part of {dimension!r}", f"it does of {held}", "not_joined")
            if len(self._joined.keys() - self._leaving.keys()) < 2:  # what was left is no more among them
                raise XenoError("this is the last dimension that this node holds a part of", "stop it instead", "last")
            if not len(placement.overlay.table):
                message = f"nobody else is in {dimension!r}, who could hold what is held here"
                raise XenoError(message, "wait until another server is there", "alone")
            leaving = self._leave(dimension, placement, holding)
            task = asyncio.get_running_loop().create_task(leaving, name=f"leave {dimension}")
            self._leaving[dimension] = task
            task.add_done_callback(lambda done: self._leaving.pop(dimension, None))
        return await asyncio.shield(task)

    async def _leave(self, dimension: str, placement: Placement, holding: TrieHolding) -> HandedOn:
        others = await (await self._as_guest()).placement(dimension)
        publishing = placement.overlay.records.publishing
        records, records_lost = await publishing.hand_on()
        self.on_left(sorted({*self._left, dimension}))  # first: where it cannot be kept, nothing has changed
        self._left.add(dimension)  # from here on this dimension is asked as a client asks, whatever happens
        try:
            holding.settle_up()
            rows = held_rows(holding)
            others.overlay.records.publishing.take_over(publishing)
            await placement.overlay.leave()
            pending = await hand_on(self.growth.of(dimension), dimension, rows, self.asker)
        except Exception:
            LOGGER.exception("%s was left, but not all that was held of it was handed on", dimension)
            raise
        finally:
            try:
                placement.overlay.goodbye(await holding.retire(others))
            finally:
                self._forget(dimension)
        return HandedOn(records, records_lost, len(rows), pending)

    async def enter(self, dimension: str) -> None:
        """Hold a part of a dimension again that was left. Raises XenoError."""
        if dimension in self._leaving:
            raise XenoError(f"this node is still leaving {dimension!r}", "try again when it has left", "leaving")
        if dimension not in self._left:
            names = ", ".join(self.left) or "none is left out"
            raise XenoError(f"this node has not left {dimension!r}", f"what it has left: {names}", "not_left")
        self._left.remove(dimension)
        try:
            placement = await self.placement(dimension)
            self.on_left(self.left)
        except BaseException:
            self._left.add(dimension)
            self._forget(dimension)
            await self.endpoint.overlay(dimension).leave()  # or it would go on looking for a way in
            raise
        if self._guest is not None and (other := self._guest.joined(dimension)) is not None:
            placement.overlay.records.publishing.take_over(other.overlay.records.publishing)

    def _forget(self, dimension: str) -> None:
        """Have no part in a dimension, nor anything left of it."""
        if (placement := self._placements.get(dimension)) is not None:
            placement.close()
        if (holding := self.holdings.get(dimension)) is not None:
            holding.stop()
        for kept in (self.holdings, self._joined, self._placements, self._joining):
            kept.pop(dimension, None)

    def renew(self, credential: bytes) -> None:
        """Show a newer credential from the next handshake on."""
        self._papers = self._papers[0], credential, self._papers[2]
        for each in self._endpoints():
            each.renew(credential)

    def shun(self, members: Iterable[tuple[bytes, bytes]]) -> None:
        """These members, and no others, have no place in overlays from now on."""
        kept = frozenset(members)
        for each in self._endpoints():
            each.shun(kept)

    async def rebind(self, host: str) -> None:
        """Go on at another address of this machine. Raises OSError or LocalError, and may then be tried again."""
        for each in reversed(self._endpoints()):  # the own one last: by its address others see whether all is done
            bound = each.own_address[0]
            if ip_address(bound).is_unspecified:
                each.sessions.begin_anew()  # it stays open, and others know its sessions by the former address
            elif bound != host:
                await each.rebind(host)

    def _endpoints(self) -> list[Endpoint]:
        return [self.endpoint, *([] if self._guest is None else [self._guest.endpoint])]

    async def _as_guest(self) -> Peer:
        """Who asks for this node where it takes no part; several who need it at once wait for the same one."""
        if self._guest is not None:
            return self._guest
        if self._opening is None or self._opening.done():
            opening = self._open_guest()
            self._opening = asyncio.get_running_loop().create_task(opening, name="open a socket to ask from")
        return await asyncio.shield(self._opening)

    async def _open_guest(self) -> Peer:
        guest = Peer(self.env, self._papers[0], self._papers[1], self.trust, self._papers[2], client=True)
        guest.growth = self.growth
        known = [*self._seeds, *self.endpoint.known_addresses(SEEDS_MAX)]
        seeds = [each for each in known if each != self.endpoint.address]
        # As clients do: a server's own address may be one that only a router's makes good.
        await guest.open((any_host(known), 0), seeds)
        guest.endpoint.renew(self._papers[1])
        guest.endpoint.shun(self.endpoint.shunned)
        self._guest = guest
        return guest

    async def close(self) -> None:
        """Stop holding, say goodbye, close the socket."""
        for leaving in self._leaving.values():
            leaving.cancel()  # what it holds has other holders; that it holds nothing any more is still said
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        if self._opening is not None:
            self._opening.cancel()
        if self._guest is not None:
            await self._guest.close()
        for holding in self.holdings.values():
            holding.stop()
        for task in list(self._joining.values()):
            task.cancel()
        for waiting in (self._informing, *self._entering):
            if waiting is not None:
                waiting.cancel()
        if not self.is_client and self.endpoint.is_open:
            await asyncio.gather(*(each.overlay.leave() for each in self._placements.values()))
            await asyncio.sleep(0.05)  # let the goodbyes leave the socket
        await self.endpoint.close()

    def joined(self, dimension: str) -> Placement | None:
        """Where a dimension's trie nodes live, once its overlay is joined."""
        if dimension in self._left:
            return None if self._guest is None else self._guest.joined(dimension)
        return self._joined.get(dimension)

    async def placement(self, dimension: str) -> Placement:
        """Where a dimension's trie nodes live; joins its overlay the first time. Raises XenoError."""
        if dimension in self._left:
            return await (await self._as_guest()).placement(dimension)
        placement = self._joined.get(dimension)
        if placement is not None:
            return placement
        placement = self._place(dimension)
        task = self._joining.get(dimension)
        if task is None:
            name = f"join {dimension}"
            task = asyncio.get_running_loop().create_task(self._enter(placement.overlay), name=name)
            self._joining[dimension] = task
        try:
            await asyncio.shield(task)
        except JoinError as error:
            if self._joining.get(dimension) is task:
                del self._joining[dimension]  # the next one who needs it tries again
            raise XenoError(
                str(error), "start XenoCorp ('xenonode corp serve') or another seed first", "no_seed"
            ) from error
        if self._placements.get(dimension) is not placement:  # left meanwhile
            return await self.placement(dimension)
        self._joined[dimension] = placement
        return placement

    def _place(self, dimension: str) -> Placement:
        placement = self._placements.get(dimension)
        if placement is None:
            overlay = self.endpoint.overlay(dimension)
            key_of = partial(trie_key, self.trust.network.network_id, self.growth.of(dimension).epoch, dimension)
            placement = self._placements[dimension] = Placement(overlay, key_of)
            if not self.is_client:
                self._hold(overlay, placement)
        return placement

    async def _enter(self, overlay: Overlay) -> None:
        """Through the seeds, or servers met in other overlays: a client's only seed may be XenoCorp, and that away."""
        met = self.endpoint.known_addresses(MET_ASKED)
        try:
            await overlay.join([*self._seeds, *met])
        except JoinError:
            # A seed of the network that finds nobody is the network, and goes on feeling for those it knew.
            if self.endpoint.address not in [seed.pair for seed in self.trust.network.seeds]:
                raise

    def overlays(self) -> list[Overlay]:
        """The overlays joined so far."""
        return [placement.overlay for placement in self._placements.values()]

    def held(self) -> Iterator[tuple[str, int, TrieHolding]]:
        """Every trie that this node has a part in: its dimension, and which of that dimension's it is."""
        for name, holding in self.holdings.items():
            for salt, one in enumerate((holding, *holding.salted)):
                yield name, salt, one

    def _hold(self, overlay: Overlay, placement: Placement) -> None:
        tries = self.tries.get(overlay.dimension, 1)
        self.holdings[overlay.dimension] = TrieHolding(overlay, self._make_holder, placement, self.env, tries)

    def _holder(self, overlay: Overlay, placement: Placement, salt: int) -> Holder:
        return Holder(
            self.growth.of(overlay.dimension),
            overlay.dimension,
            Contact(overlay.node_id, self.endpoint.address).packed,
            self.adverts.point,
            incarnation=self.env.now_ms(),
            capacity=self.leaf_capacity,
            may_hold=partial(placement.may_hold, group=salt),
            turn=partial(placement.rank, group=salt),
            ahead_ms=lambda: self.env.now_ms() - monotonic_ms(),
            root_groups=1 if overlay.dimension in self.tries else self.root_groups,
        )

    def _member(self, credential_raw: bytes, now_ms: int) -> Member:
        credential = self.trust.credential(credential_raw, now_ms)
        return _member_of(credential)


@lru_cache(maxsize=MEMBERS_REMEMBERED_MAX)
def _member_of(credential: Credential) -> Member:
    serves = credential.role in SERVING_ROLES
    return Member(credential.key, credential.issuer_nonce, credential.entity, credential.expires_ms, serves)


def describe_holdings(peer: Peer) -> dict[str, dict[str, int]]:
    """What a node holds of each dimension's trie, for `status`."""
    every = sorted(peer.held(), key=lambda one: one[:2])
    return {name + (f" #{salt}" if salt else ""): holding.holder.statistics() for name, salt, holding in every}
