"""The two transports as test worlds: TLS on real loopback sockets, signed hellos on the virtual loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from dht.identity import ED25519, Scheme
from xenonode.control.hello import HelloTransport
from xenonode.control.stream import Transport
from xenonode.control.tls import TlsIdentity, issue, make_authority
from xenonode.control.tls_transport import TlsTransport
from xenonode.simulation.run import Simulation
from xenonode.simulation.scheme import SimulatedScheme


def seed_of(name: str) -> bytes:
    return name.encode().ljust(32, b".")


class World(Protocol):
    scheme: Scheme

    def transport(self, name: str | None) -> Transport: ...

    def key(self, name: str) -> bytes: ...


class TlsWorld:
    """Members with certificates of one XenoCorp."""

    scheme: Scheme = ED25519

    def __init__(self) -> None:
        self.now_ms = time.time_ns() // 1_000_000
        self.corp = make_authority(seed_of("corp"), name="XenoCorp", now_ms=self.now_ms)

    def key(self, name: str) -> bytes:
        return self.scheme.generate(seed_of(name)).public_key

    def identity(self, name: str, **changes: Any) -> TlsIdentity:
        options = {"now_ms": self.now_ms, "name": name, **changes}
        return TlsIdentity(seed_of(name), issue(self.corp, self.key(name), **options))

    def transport(self, name: str | None) -> TlsTransport:
        return TlsTransport(None if name is None else self.identity(name), [self.corp.certificate_pem])


class HelloWorld:
    """Members with simulated keys."""

    def __init__(self) -> None:
        self.scheme: Scheme = SimulatedScheme(b"tests")

    def key(self, name: str) -> bytes:
        return self.scheme.generate(seed_of(name)).public_key

    def transport(self, name: str | None) -> HelloTransport:
        signer = None if name is None else self.scheme.generate(seed_of(name))
        return HelloTransport(self.scheme, signer, random.Random(f"nonces of {name}"))


Scenario = Callable[[Any], Coroutine[Any, Any, None]]


def play_tls(scenario: Scenario) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario(TlsWorld())

    asyncio.run(bounded())


def play_hello(scenario: Scenario) -> None:
    with Simulation(1, horizon_ns=10**14) as simulation:
        simulation.run(scenario(HelloWorld()))


BOTH = [play_tls, play_hello]
