"""Membership: the papers that make a key a member, how they are got, kept, and renewed in time.

Decides when papers are good, when to ask XenoCorp, and what to do while it is away: a member goes on with what it
has until the day it expires. Leaves what is granted to `corp`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dht.errors import RemoteError
from dht.identity import Scheme
from xenonode.control.client import connect
from xenonode.control.errors import TIMEOUT, UNREACHABLE, ControlError
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import Home
from xenonode.model.entity import CLOCK_TOLERANCE_MS, Credential, Network, Registration, Trust
from xenonode.model.schema import PublishedSchema, read_schema

LOGGER = logging.getLogger("xenonode.membership")
RENEW_CHECK_S = 600.0
"""Papers live for days; a member finds them half spent, or XenoCorp back, at most this much later."""
AWAY = (UNREACHABLE, TIMEOUT)
"""Codes that say that nobody answered."""
_PAPERS = ("network", "credential", "certificate", "authority", "schema")


@dataclass(frozen=True, slots=True)
class Papers:
    """What a member keeps: signed network file, credential, its X.509 form, XenoCorp's authority, published schema."""

    network: bytes
    credential: bytes
    certificate: bytes
    authority: bytes
    schema: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """Checked papers."""

    papers: Papers
    trust: Trust
    credential: Credential
    published: PublishedSchema

    @property
    def network(self) -> Network:
        """The network that this is a membership of."""
        return self.trust.network

    def half_spent(self, now_ms: int) -> bool:
        """Whether it is time to renew: half of the credential's life is over."""
        return now_ms >= (self.credential.not_before_ms + self.credential.expires_ms) // 2


def read_network(raw: bytes, scheme: Scheme, where: str) -> Trust:
    """Check a network file. Raises XenoError."""
    try:
        network, envelope = Network.open(raw, scheme)
        if envelope.key != network.root_key:
            message = f"{where} is not signed by the root key that it names"
            raise XenoError(message, "get it again from XenoCorp", "network")
        return Trust(network, scheme)
    except RemoteError as error:
        next_step = "get it again from XenoCorp ('xenonode corp init' makes it)"
        raise XenoError(f"{where} is no valid network file: {error}", next_step, "network") from error


def check(papers: Papers, key: bytes, scheme: Scheme, now_ms: int) -> Membership:
    """Check stored papers. Raises RemoteError or XenoError, saying which does not hold."""
    trust = read_network(papers.network, scheme, "the stored network file")
    credential = trust.credential(papers.credential, now_ms)
    if credential.key != key:
        raise XenoError("the stored credential is another key's", "run: xenonode register", "credential")
    return Membership(papers, trust, credential, read_schema(papers.schema, trust, now_ms))


def stored(home: Home) -> Papers | None:
    """The papers in a role's home, if it has registered."""
    found = {name: home.disk.read(name) for name in _PAPERS}
    if not found["credential"]:
        return None
    return Papers(**found)


def store(home: Home, papers: Papers) -> None:
    """Keep papers; the credential comes last, since with it a role counts as registered."""
    for name in ("network", "schema", "authority", "certificate", "credential"):
        home.disk.replace(name, getattr(papers, name))


async def enter(
    home: Home, env: Env, network_raw: bytes, registration: Callable[[bytes, int], Registration] | None
) -> Membership:
    """Membership by stored papers, renewed or got anew from XenoCorp where need be.

    `registration(network_id, now_ms)` says who this is; without it only stored papers serve. Raises XenoError.
    """
    trust = read_network(network_raw, env.scheme, "the network file")
    papers, held = stored(home), None
    problem = "not registered with XenoCorp yet"
    if papers is not None:
        try:
            if Network.open(papers.network, env.scheme)[0].network_id == trust.network.network_id:
                held = check(papers, home.signer.public_key, env.scheme, env.now_ms())
        except (RemoteError, XenoError) as error:  # a file that rotted: XenoCorp has all of them
            problem = str(error)
        if held is not None and not held.half_spent(env.now_ms()):
            return held
    if registration is None and held is None:
        raise XenoError(problem, "run: xenonode register", "not_registered")
    try:
        if registration is not None:
            return await register(home, env, trust, registration)
    except (XenoError, ControlError) as error:
        if held is None:
            message = f"{problem}; registering with XenoCorp at {trust.network.corp_control} failed: {error.message}"
            raise XenoError(message, error.next_step, error.code) from error
    assert held is not None  # XenoCorp is away, or will not: what we have is still good
    return held


async def register(
    home: Home, env: Env, trust: Trust, registration: Callable[[bytes, int], Registration]
) -> Membership:
    """Register this home's key (the same grant again for the same details). Raises XenoError or ControlError."""
    network = trust.network
    transport = home.transport(b"", ())
    try:
        connection = await connect(*network.corp_control.pair, network.corp_key, transport=transport)
    except ControlError as error:
        raise corp_away(error, network) from error
    try:
        corp_ms = int((await connection.call("info", {}))["time_ms"])
        check_clock(env.now_ms(), corp_ms)
        signed = registration(network.network_id, env.now_ms()).seal(home.signer)
        papers = papers_in(await connection.call("register", {"registration": signed.raw}))
    finally:
        await connection.close()
    return _accept(home, env, trust, papers)


async def renew(home: Home, env: Env, held: Membership, call: Callable[[str, dict[str, Any]], Any]) -> Membership:
    """A fresh credential for the same key over a proved connection. Raises XenoError or ControlError."""
    grant = await call("renew", {})
    papers = papers_in({"network": held.papers.network, "schema": held.papers.schema, **grant})
    return _accept(home, env, held.trust, papers)


async def refresh(
    home: Home,
    env: Env,
    held: Membership,
    call: Callable[[str, dict[str, Any]], Any],
    registration: Callable[[bytes, int], Registration],
) -> Membership:
    """Fresh papers: over a connection that the old ones prove; by registering again once these have expired.

    Raises XenoError or ControlError.
    """
    if env.now_ms() < held.credential.expires_ms:
        return await renew(home, env, held, call)
    return await register(home, env, held.trust, registration)


async def stay(
    home: Home,
    env: Env,
    held: Membership,
    call: Callable[[str, dict[str, Any]], Any],
    registration: Callable[[bytes, int], Registration],
    renewed: Callable[[Membership], None],
) -> None:
    """Keep a running role a member for ever: fresh papers at half-life, tried again while XenoCorp is away."""
    while True:
        if held.half_spent(env.now_ms()):
            try:
                held = await refresh(home, env, held, call, registration)
                renewed(held)
            except (ControlError, XenoError) as error:
                left_h = (held.credential.expires_ms - env.now_ms()) // 3_600_000
                state = f"is good for {left_h} h more" if left_h >= 0 else "has expired: others refuse this member"
                LOGGER.warning("the credential could not be renewed, and %s: %s", state, error)
        await asyncio.sleep(RENEW_CHECK_S)


def corp_away(error: ControlError, network: Network) -> ControlError:
    """The same error, in words that say who does not answer, if nobody does."""
    if error.code not in AWAY:
        return error
    message = f"XenoCorp does not answer at {network.corp_control}"
    next_step = "searches and running sessions go on without it; try again later, or ask its operator"
    return ControlError(error.code, message, next_step)


def check_clock(own_ms: int, corp_ms: int) -> None:
    """Refuse to sign by a clock that is far off. Raises XenoError."""
    off_ms = own_ms - corp_ms
    if abs(off_ms) > CLOCK_TOLERANCE_MS:
        direction = "ahead of" if off_ms > 0 else "behind"
        raise XenoError(
            f"this machine's clock is {abs(off_ms) // 1000} s {direction} XenoCorp's; its signatures would not count",
            "set the clock (for example with chrony or 'timedatectl set-ntp true'), then try again",
            "clock",
        )


def papers_in(grant: dict[str, Any]) -> Papers:
    """The papers in XenoCorp's answer to a registration. Raises XenoError where one is missing."""
    found = {name: grant.get(name) for name in _PAPERS}
    for name, value in found.items():
        if not isinstance(value, bytes):
            raise XenoError(f"XenoCorp's answer holds no {name}", "compare the versions of both sides", "bad_peer")
    return Papers(**found)  # type: ignore[arg-type]  # bytes all, by the check above


def _accept(home: Home, env: Env, trust: Trust, papers: Papers) -> Membership:
    try:
        membership = check(papers, home.signer.public_key, env.scheme, env.now_ms())
    except RemoteError as error:
        message = f"XenoCorp granted what does not hold: {error}"
        raise XenoError(message, "check this machine's clock", "grant") from error
    if membership.network.root_key != trust.network.root_key:
        raise XenoError("XenoCorp answered for another network", "get the network file again", "network")
    store(home, papers)
    return membership
