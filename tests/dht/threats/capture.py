"""Lookup capture: colluders who name only one another, and in the worse case invent neighbours that do not exist.

The real tables and the real lookup, without the wire: a question is answered at once. A get is captured when no
honest holder of the record, among the nodes nearest to its key, has been asked.
"""

from __future__ import annotations

import random

from dht.contact import Contact
from dht.lookup import Lookup
from dht.publishing import REPLICAS
from dht.routing import K, Table

from .outcome import Outcome

MODES = ("colluding", "inventing")


def attack(nodes: int, lookups: int, share: float = 0.3, disjoint: int = 2, seed: int = 7) -> Outcome:
    """`lookups` gets from honest nodes, in each of both modes."""
    rng = random.Random(seed)
    contacts = [
        Contact(rng.randbytes(20), (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4_000))
        for number in range(nodes)
    ]
    hostile = set(rng.sample(range(nodes), int(nodes * share)))
    colluders = [contact for number, contact in enumerate(contacts) if number in hostile]
    bad = {contact.node_id for contact in colluders}
    tables: dict[bytes, Table] = {}
    for contact in contacts:
        if contact.node_id not in bad:
            table = tables[contact.node_id] = Table(contact.node_id)
            for other in rng.sample(contacts, len(contacts)):
                table.add_contact(other)
    honest = [contact for contact in contacts if contact.node_id not in bad]
    reached: dict[str, float] = {}
    asked: dict[str, float] = {}
    for mode in MODES:
        good = questions = 0
        for _ in range(lookups):
            key = rng.randbytes(20)
            captured, count = _get(rng, key, rng.choice(honest), contacts, colluders, bad, tables, mode, disjoint)
            good += not captured
            questions += count
        reached[mode] = good / lookups
        asked[mode] = questions / lookups
    return Outcome(
        "lookup capture",
        ">= 99.9 % reach an honest holder",
        ", ".join(f"{100 * value:.2f} % {mode}" for mode, value in reached.items()),
        min(reached.values()) >= 0.999,
        {
            "nodes": nodes,
            "lookups": lookups,
            "colluders": len(colluders),
            "k": K,
            "disjoint": disjoint,
            **{f"questions_{mode}": round(value, 1) for mode, value in asked.items()},
        },
    )


def _get(
    rng: random.Random,
    key: bytes,
    asker: Contact,
    contacts: list[Contact],
    colluders: list[Contact],
    bad: set[bytes],
    tables: dict[bytes, Table],
    mode: str,
    disjoint: int,
) -> tuple[bool, int]:
    target = int.from_bytes(key, "big")
    holders = sorted(contacts, key=lambda contact: contact.number ^ target)[:REPLICAS]
    wanted = {contact.node_id for contact in holders} - bad
    if not wanted or asker.node_id in wanted:
        return False, 0  # held by the asker itself, or by colluders only: no lookup could help
    lookup = Lookup(target, tables[asker.node_id].nearest(target, K), k=K, own_id=asker.node_id, disjoint=disjoint)
    asks = lookup.start()
    shown = sorted(colluders, key=lambda contact: contact.number ^ target)[:K]
    while asks:
        contact = asks.pop(rng.randrange(len(asks)))
        if contact.node_id in wanted:
            return False, lookup.asked
        if contact.node_id in tables:
            asks += lookup.answered(contact, tables[contact.node_id].nearest(target, K))
        elif contact.node_id not in bad:
            asks += lookup.failed(contact, hostile=True)  # nobody has this id: the handshake tells
        elif mode == "colluding":
            asks += lookup.answered(contact, shown)
        else:
            invented = [Contact(key[:18] + rng.randbytes(2), rng.choice(colluders).address) for _ in range(K)]
            asks += lookup.answered(contact, invented)
    return True, lookup.asked
