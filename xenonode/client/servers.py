"""What a client asks of one server: its advert, a quote, how it is.

Decides which answers hold: an advert must be the server's own and stand every check, a quote be for what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from dht.errors import RemoteError
from dht.identity import Signer
from xenonode.client.member import Member
from xenonode.client.records import Records
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.advert import OfferedEnvironment, VerifiedAdvert, verify_advert
from xenonode.model.entity import Address, Trust
from xenonode.model.errors import ModelError
from xenonode.model.resources import Resources
from xenonode.model.session import Quote, QuoteRequest, Refusal


@dataclass(frozen=True, slots=True)
class SignedQuote:
    """A server's quote with its signature, and where the server is."""

    quote: Quote
    raw: bytes
    server: bytes
    control: Address
    lease_ms: int


@dataclass(frozen=True, slots=True)
class ShownAdvert:
    """What a server shows of itself, and in which dimensions, by its own word, searches may not find it yet."""

    advert: VerifiedAdvert
    pending: tuple[str, ...]

    @classmethod
    def of(cls, advert: VerifiedAdvert, pending: object) -> Self:
        """From an answer, whose sender may be of an earlier version and say nothing. Raises XenoError."""
        names = [] if pending is None else pending
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise XenoError("the server's answer has no list of dimensions", "take another server", "bad_peer")
        return cls(advert, tuple(names))


class Servers:
    """See the module. Servers are named by the first digits of their key, if a search has found them, or by address."""

    def __init__(self, signer: Signer, env: Env, trust: Trust, records: Records, member: Member) -> None:
        self._signer, self._env, self._trust, self._records, self._member = signer, env, trust, records, member

    async def advert(self, server: str) -> VerifiedAdvert:
        """A server's own current advert, by the first digits of its key or by HOST:PORT of its control connection."""
        return (await self.shown_advert(server)).advert

    async def shown_advert(self, server: str) -> ShownAdvert:
        """The same, and where searches may not find it yet."""
        place = Address.parse(server)
        key, address = self._records.found(server) if place is None else (None, place.pair)
        connection = await self._member.connect(address, key)
        try:
            answer = await connection.call("advert", {})
            found = verify_advert(answer["advert"], self._trust, self._env.now_ms())
            if found.server_key != connection.peer_key:
                raise XenoError("the server showed another server's advert", "do not use this server", "bad_peer")
        except RemoteError as error:
            raise XenoError(f"the server's advert does not hold: {error}", "take another server", "advert") from error
        finally:
            await connection.close()
        self._records.keep_found([found])
        return ShownAdvert.of(found, answer.get("pending"))

    async def quote(
        self, server: bytes, resources: Resources, environment: OfferedEnvironment, lease_ms: int
    ) -> SignedQuote | Refusal:
        """Ask a server that was found whether it would host this: a quote held for a minute, or its reasons."""
        _, address = self._records.found(server.hex())
        nonce = self._env.rng("client.nonce").randbytes(16)
        try:
            request = QuoteRequest(nonce, server, resources, environment, lease_ms, self._env.now_ms())
        except ModelError as error:
            raise XenoError(str(error), "ask for more", "bad_request") from error
        sealed = request.seal(self._signer)
        answer = await self._member.call_server(server, address, "quote", {"request": sealed.raw})
        scheme = self._trust.scheme
        if "refusal" in answer:
            return Refusal.open(answer["refusal"], scheme, signed_by=server)[0]
        quote, _ = Quote.open(answer["quote"], scheme, signed_by=server)
        if quote.request != sealed.id or quote.resources != resources or quote.environment != environment:
            raise XenoError("the server quoted something else than was asked", "do not use this server", "bad_peer")
        return SignedQuote(quote, answer["quote"], server, Address(*address), lease_ms)

    async def status(self, server: bytes) -> dict[str, Any]:
        """What a server that was found says of itself."""
        _, address = self._records.found(server.hex())
        return await self._member.call_server(server, address, "status", {})

    async def metrics(self, server: str = "") -> dict[str, Any]:
        """What a node (XenoCorp's by default) counts and measures: Prometheus text, and an alarm if there is one."""
        if not server:
            return await self._member.call_corp("metrics", {})
        found = await self.advert(server)
        return await self._member.call_server(found.server_key, found.advert.control.pair, "metrics", {})
