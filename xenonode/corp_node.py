"""XenoCorp as a running node: its ledger, its services and its operator's way in, joined to what every node has."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Self

from dht.contact import admits
from dht.contradictions import Contradiction
from xenonode import membership
from xenonode.config import CorpConfig
from xenonode.control.stream import Transport
from xenonode.control.tls import Authority, issue, make_authority
from xenonode.corp import founding
from xenonode.corp.database import open_database
from xenonode.corp.founding import Founded
from xenonode.corp.members import Certify
from xenonode.corp.service import CorpService
from xenonode.corp.soundness import check_books
from xenonode.corp.store import Store
from xenonode.corp.terms import Terms
from xenonode.env import Env
from xenonode.errors import ConfigError
from xenonode.first_schema import first_schema
from xenonode.growing import SchemaDesk
from xenonode.home import AUTHORITY, OPERATOR_CERTIFICATE, Home, LiveHome
from xenonode.membership import Papers, check
from xenonode.model.schema import PublishedSchema
from xenonode.node import Node

CORP_ANONYMOUS = ("info", "register")


class CorpNode(Node):
    """XenoCorp: the trusted third party, and a peer like any other."""

    role = "corp"

    @classmethod
    async def found(cls, config: CorpConfig, env: Env) -> Path:
        """Make keys, ledger and network file in the configured folder; return the network file's path."""
        path = config.folder / founding.NETWORK_FILE
        if not path.exists():
            # Before anything is written: what is wrong with the settings shows here.
            check_addresses(config)
            schema = draw_schema(config, env)
            founding.initialise(config.folder, config, lambda signer: schema.seal(signer).raw, env.now_ms())
        return path

    @classmethod
    async def start(cls, config: CorpConfig, env: Env) -> Self:
        """Serve from the configured folder. Raises XenoError."""
        founded = founding.load(config.folder)
        home = LiveHome(config.folder, signer=founded.keys.node)
        try:
            store = Store(open_database(founded.ledger), threaded=True)
        except BaseException:
            home.leave()
            raise
        seed = founding.authority_seed(founded.keys.issuing)
        authority = make_authority(seed, name=config.public_name, now_ms=env.now_ms())
        return await cls.run(config, env, home, founded, store, partial(certify, authority), authority.certificate_pem)

    @classmethod
    async def run(
        cls,
        config: CorpConfig,
        env: Env,
        home: Home,
        founded: Founded,
        store: Store,
        certify: Certify,
        authority_pem: bytes,
    ) -> Self:
        """Serve from these parts, which end with the node. `certify` makes what members show on connections."""
        node = cls(env, home)
        node._ending.callback(home.leave)
        node._ending.push_async_callback(store.close)
        try:
            await node._start(config, founded, store, certify, authority_pem)
        except BaseException:
            await node.close()
            raise
        return node

    async def _start(
        self, config: CorpConfig, founded: Founded, store: Store, certify: Certify, authority_pem: bytes
    ) -> None:
        env, keys = self.env, founded.keys
        await store.run(check_books)
        self.service = CorpService(
            keys,
            founded.network,
            founded.schema,
            store,
            scheme=env.scheme,
            now_ms=env.now_ms,
            rng=env.rng("corp"),
            terms=Terms.of(config),
            certify=certify,
            authority_pem=authority_pem,
        )
        own = await self.service.enrol(keys.node.public_key)
        self._authority, self._operator = authority_pem, keys.operator.public_key
        await self._admit_operator()
        papers = Papers(founded.network, own.credential, own.certificate, authority_pem, founded.schema)
        held = check(papers, keys.node.public_key, env.scheme, env.now_ms())
        transport = self.home.transport(papers.certificate, [papers.authority])
        await self._open(held, config.udp)
        self.service.shun = self.peer.endpoint.shun
        self.service.dimensions = lambda: self.peer.schema.by_name
        await self._join()
        desk = SchemaDesk(self.peer, keys.issuing, keys.operator.public_key)
        handlers = {**self.service.handlers, **desk.handlers}
        await self._serve(config.control, transport, handlers, CORP_ANONYMOUS)
        sweeping = env.spawn(self.service.run(), "corp sweep")
        renewing = env.spawn(self._stay_member(transport, own.credential), "renew own credential")
        self._ending.callback(sweeping.cancel)
        self._ending.callback(renewing.cancel)

    async def _bring(self, proof: Contradiction) -> None:
        await self.service.note_equivocation(proof.first, proof.second)

    async def _admit_operator(self) -> None:
        """Leave in the folder what the operator's commands need to connect; a new certificate at every half-life."""
        operator = await self.service.enrol(self._operator)
        if self.home.disk.read(OPERATOR_CERTIFICATE) != operator.certificate:
            self.home.disk.replace(AUTHORITY, self._authority)
            self.home.disk.replace(OPERATOR_CERTIFICATE, operator.certificate)

    async def _stay_member(self, transport: Transport, credential: bytes) -> None:
        while True:
            await asyncio.sleep(membership.RENEW_CHECK_S)
            await self._admit_operator()
            own = await self.service.enrol(self.home.signer.public_key)
            if own.credential != credential:
                credential = own.credential
                self.peer.endpoint.renew(own.credential)
                self.home.renew(transport, own.certificate)

    def status(self) -> dict[str, object]:
        """What `xenonode status` shows."""
        return self._status()


def certify(authority: Authority, key: bytes, entity: str, role: str, not_before_ms: int, expires_ms: int) -> bytes:
    """A member's X.509 certificate, which lives exactly as long as its credential."""
    return issue(authority, key, name=entity, now_ms=not_before_ms, lifetime_ms=expires_ms - not_before_ms)


def check_addresses(config: CorpConfig) -> None:
    """Raises ConfigError where XenoCorp's own network would not speak to it."""
    for name, address in (("udp", config.udp), ("control", config.control)):
        if not admits(address.host, config.profile):
            kind = "a public address" if config.profile == "public" else "a private or loopback address"
            raise ConfigError(
                f"{name}: {address.host} is no address for a network of profile {config.profile!r}",
                f'write {kind} of this machine, e.g. {name} = "HOST:{address.port}", or set another profile',
                "address",
            )


def draw_schema(config: CorpConfig, env: Env) -> PublishedSchema:
    """The first schema of a network: its breakpoints are those of the real catalogue's machines and prices."""
    schema, tries = first_schema(), dict(config.tries)
    for name in tries:
        if name not in schema.by_name:
            known = ", ".join(dimension.name for dimension in schema.dimensions)
            raise ConfigError(f"tries: there is no dimension {name!r}", f"name some of {known}")
    return PublishedSchema.of(schema, config.leaf_capacity, env.now_ms(), config.root_groups, tries)
