"""Control methods of membership: register, renew, look up; and the operator's: approve, refuse, reveal, erase.

Registering is open to everybody; the rules are in `members` and `applicants`. On a local network each address is a
place of its own, on a public one its /24 or /48 is.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

from xenonode.corp import members
from xenonode.corp.desk import Desk, kept, proved_key, same_key
from xenonode.corp.errors import RefusedError
from xenonode.corp.members import Registry
from xenonode.corp.requests import (
    Body,
    Caller,
    Method,
    applicant_reply,
    grant_reply,
    identity_reply,
    octets,
    words,
)
from xenonode.model.entity import CLOCK_TOLERANCE_MS, Registration


class MemberMethods:
    """Answers for the registry."""

    def __init__(self, desk: Desk, registry: Registry) -> None:
        self._desk = desk
        self._registry = registry

    @property
    def methods(self) -> Mapping[str, Method]:
        """Each method by name."""
        return {
            "register": self._register,
            "renew": self._renew,
            "member": self._member,
            "member.reveal": self._reveal,
            "member.erase": self._erase,
            "member.waiting": self._waiting,
            "member.approve": self._approve,
            "member.refuse": self._refuse,
        }

    async def _register(self, caller: Caller, body: Body) -> Body:
        registration, envelope = Registration.open(octets(body, "registration"), self._desk.scheme)
        same_key(caller, envelope, optional=True)
        if registration.network_id != self._desk.network.network_id:
            raise RefusedError("other_network", "the registration is for another network", "use this network's file")
        if registration.role == "corp":
            raise RefusedError("role", "XenoCorp's own keys are made by its operator", "register as client or server")
        if registration.requested_ms > self._desk.now_ms() + CLOCK_TOLERANCE_MS:
            raise RefusedError("clock", "the registration was made in the future", "set the clock right")
        place = _place(caller.address[0], self._desk.network.profile)
        member = await self._desk.at_now(
            lambda books, now_ms: self._registry.register(books, registration, envelope.key, place, now_ms)
        )
        return {**grant_reply(kept(member)), **self._desk.papers}

    async def _renew(self, caller: Caller, body: Body) -> Body:
        key = proved_key(caller)
        member = await self._desk.at_now(lambda books, now_ms: self._registry.renew(books, key, now_ms))
        return {**grant_reply(member), "authority": self._desk.authority_pem}

    async def _member(self, caller: Caller, body: Body) -> Body:
        key = octets(body, "key")
        return {"credential": (await self._desk.store.run(lambda books: members.need(books, key))).credential}

    async def _waiting(self, caller: Caller, body: Body) -> Body:
        self._desk.operator_only(caller)
        waiting = await self._desk.store.run(self._registry.applicants.waiting)
        return {"applicants": [applicant_reply(each) for each in waiting]}

    async def _approve(self, caller: Caller, body: Body) -> Body:
        self._desk.operator_only(caller)
        prefix = words(body, "key")
        member = await self._desk.at_now(lambda books, now_ms: self._registry.approve(books, prefix, now_ms))
        return {"key": member.key, "entity": member.entity}

    async def _refuse(self, caller: Caller, body: Body) -> Body:
        self._desk.operator_only(caller)
        prefix = words(body, "key")
        refuse = self._registry.applicants.refuse
        return {"key": await self._desk.at_now(lambda books, now_ms: refuse(books, prefix, now_ms))}

    async def _reveal(self, caller: Caller, body: Body) -> Body:
        self._desk.operator_only(caller)
        entity = words(body, "entity")
        return identity_reply(await self._desk.store.run(lambda books: self._registry.reveal(books, entity)))

    async def _erase(self, caller: Caller, body: Body) -> Body:
        self._desk.operator_only(caller)
        entity = words(body, "entity")
        await self._desk.store.run(lambda books: self._registry.erase(books, entity))
        return {}


def _place(host: str, profile: str) -> str:
    """What counts as one place: an address on a local network, its /24 or /48 on a public one."""
    if profile == "local":
        return host
    return str(ip_network(f"{host}/{48 if ':' in host else 24}", strict=False))
