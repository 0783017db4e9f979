"""What a client can do, on one configuration: register, search, order, quote, lease, log in, account.

Joins the client's parts, each of which answers for one subject: `member`, `finding`, `servers`, `orders`, `sessions`,
`presence`, `values`; does by itself only what needs several of them. Opens no socket before a question needs one, and
starts in well under a second. All raise XenoError (and ControlError, which carries the same three fields).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from xenonode import membership
from xenonode.client.finding import Finding
from xenonode.client.member import Member
from xenonode.client.opening import Progress
from xenonode.client.operator import Operator
from xenonode.client.orders import Orders
from xenonode.client.presence import Presence
from xenonode.client.records import Records, SessionView
from xenonode.client.saved import Saved
from xenonode.client.servers import Servers, SignedQuote
from xenonode.client.sessions import Sessions
from xenonode.client.ssh import LoginKey, own_key, ssh_argv
from xenonode.client.values import Values
from xenonode.config import ClientConfig, CorpConfig
from xenonode.control.errors import ControlError
from xenonode.corp import founding
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import AUTHORITY, OPERATOR_CERTIFICATE, Home, LiveHome
from xenonode.membership import AWAY, read_network
from xenonode.model.errors import ModelError
from xenonode.model.session import RECEIPT_PERIOD_MS


class Client:
    """See the module."""

    def __init__(
        self, config: ClientConfig, env: Env, home: Home, network: bytes, login_key: LoginKey = own_key
    ) -> None:
        self._config, self._env, self._home = config, env, home
        self._login_key = login_key
        self._trust = trust = read_network(network, env.scheme, str(config.network))
        self.records, self.saved = Records(home.disk), Saved(home.disk)
        self.member = member = Member(config, env, home, trust)
        self.presence = Presence(config, env, home, member)
        self.finding = Finding(self.records, self.saved, env, self.presence.joined)
        self.values = Values(env, trust, home.signer.public_key, self.records, self.presence, member)
        self.servers = Servers(home.signer, env, trust, self.records, member)
        self.sessions = Sessions(home.signer, env, trust, self.records, member.call_corp, member.call_server)
        self.orders = Orders(home.signer, env, trust, member.call_corp, self.sessions.recover)

    @classmethod
    async def open(cls, config: ClientConfig, env: Env) -> Self:
        """A client on its configured folder; nothing is sent yet. Raises XenoError."""
        try:
            network = config.network.read_bytes()
        except OSError as error:
            raise XenoError(
                f"network file {config.network} cannot be read: {error.strerror}",
                "get it from XenoCorp ('xenonode corp init' makes it), and set network = \"...\"",
                "network",
            ) from error
        return cls(config, env, LiveHome(config.folder, exclusive=False), network)

    @staticmethod
    async def open_operator(config: CorpConfig, env: Env) -> Operator:
        """XenoCorp's operator, on XenoCorp's own machine. Raises XenoError."""
        founded = founding.load(config.folder)
        trust = read_network(founded.network, env.scheme, str(config.folder / founding.NETWORK_FILE))
        home = LiveHome(config.folder, exclusive=False, signer=founded.keys.operator)
        certificate, authority = home.disk.read(OPERATOR_CERTIFICATE), home.disk.read(AUTHORITY)
        if not certificate:
            message = "XenoCorp has not run in this folder yet"
            raise XenoError(message, "start it: xenonode corp serve", "not_running")
        return await Operator.open(env, trust.network, home.transport(certificate, [authority]))

    async def close(self) -> None:
        """Hang up; sessions go on."""
        await self.presence.close()
        await self.member.close()
        self._home.leave()

    async def lease(
        self,
        order: str,
        quote: SignedQuote,
        *,
        authorized_keys: Sequence[str] = (),
        hostname: str = "xenonode",
        receipt_period_ms: int = RECEIPT_PERIOD_MS,
        progress: Progress = lambda text: None,
    ) -> SessionView:
        """Reserve, sign, launch; returns when one can log in. Our own ssh key is always among those that may."""
        await self.sessions.recover()
        keys = dict.fromkeys([self._login_key(self.ssh_key, self._env), *authorized_keys])
        try:
            return await self.sessions.create(
                await self.orders.id_of(order),
                quote.quote,
                quote.raw,
                quote.server,
                quote.control,
                lease_ms=quote.lease_ms,
                authorized_keys=tuple(keys),
                hostname=hostname,
                receipt_period_ms=receipt_period_ms,
                progress=progress,
            )
        except ModelError as error:
            raise XenoError(str(error), "correct the request", "bad_request") from error

    async def ssh_command(self, id: str) -> list[str]:
        """The command that logs in, trusting only the host key in the signed start record."""
        start = await self.sessions.start_record(id)
        record = self.records.find(id)
        return ssh_argv(start, self.ssh_key, self._config.folder / f"known_hosts-{record.id.hex()}")

    @property
    def ssh_key(self) -> Path:
        """The private ssh key of this client; a plain name is taken to be in its folder."""
        return self._config.folder / self._config.ssh_key

    async def status(self) -> dict[str, object]:
        """Who we are, of which network, and what is open."""
        held = membership.stored(self._home)
        network = self._trust.network
        found: dict[str, object] = {
            "role": "client",
            "folder": str(self._config.folder),
            "key": self._home.signer.public_key.hex(),
            "registered": held is not None,
            "network": network.network_id.hex(),
            "profile": network.profile,
            "xenocorp": str(network.corp_control),
            "sessions": len([record for record in self.records.sessions() if not record.closed]),
        }
        if held is not None:
            credential = self.member.held.credential
            found |= {"entity": credential.entity, "credential_expires_ms": credential.expires_ms}
            try:
                found["xenocorp_status"] = await self.member.call_corp("status", {})
            except ControlError as error:
                if error.code not in AWAY:
                    raise
                found["xenocorp_status"] = error.message  # the rest is known without it
        return found
