"""One host of the test: publishes a value of each size, reads the other's, and tells as JSON what came of it.

    python host.py NAME ADDRESS PORT OTHER_NAME SEED_ADDRESS SEED_PORT SIZES [client|examine|swarm|join]

Without a seed ("-") it begins a network, and serves until its input closes; as a swarm with nine more nodes on the
next ports. With `examine` it finds out whether others can reach it, as a server must, and with `join` it joins
then. One who comes to the swarm last looks for the other host, of whom it hears from others alone, and asks it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from typing import Any

from dht.endpoint import Endpoint
from dht.envelope import open_envelope, seal
from dht.errors import RemoteError
from dht.handshake import Member
from dht.identity import ED25519
from dht.reachability import UnreachableError

ISSUER = ED25519.generate(hashlib.sha256(b"issuer").digest())
DIMENSION = "cores"
HOUR_MS = 3_600_000
ATTEMPTS = 5
EXAMINATIONS = 6
# So many that those who tell agree, and others are left who never heard of whom they call.
TELLERS = 3
SWARM = 10


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def signer_of(name: str) -> Any:
    return ED25519.generate(hashlib.sha256(name.encode()).digest())


def check(raw: bytes, at_ms: int) -> Member:
    envelope = open_envelope(raw, ED25519, "credential")
    if envelope.key != ISSUER.public_key:
        raise RemoteError("a credential of another issuer")
    body = envelope.body
    return Member(body["key"], body["nonce"], body["entity"], body["expires_ms"], serves=True)


def key_of(name: str, size: int) -> bytes:
    return hashlib.sha256(f"{name} {size}".encode()).digest()[:20]


def value_of(name: str, size: int) -> bytes:
    return random.Random(f"{name} {size}").randbytes(size)


def make(name: str, *, client: bool) -> Endpoint:
    signer = signer_of(name)
    body = {
        "key": signer.public_key,
        "nonce": signer.public_key[:8],
        "entity": name,
        "expires_ms": now_ms() + HOUR_MS,
    }
    return Endpoint(
        signer,
        seal(ISSUER, "credential", body).raw,
        check,
        network_id=b"two hosts",
        now_ms=now_ms,
        rng=random.Random(name),
        client=client,
    )


async def main() -> None:
    name, address, port, other, seed_address, seed_port, sizes_text, *flags = sys.argv[1:]
    sizes = [int(text) for text in sizes_text.split(",")]
    endpoint = make(name, client="client" in flags)
    await endpoint.open(address, int(port))
    overlay = endpoint.overlay(DIMENSION)
    seeds = [] if seed_address == "-" else [(seed_address, int(seed_port))]
    if "examine" in flags:
        # Before it joins: whoever knows it already is no stranger who could call.
        for number in range(TELLERS):
            await endpoint.ping((seed_address, int(seed_port) + number))
    else:
        await overlay.join(seeds)
    others = [make(f"{name}-{number}", client=False) for number in range(1, SWARM if "swarm" in flags else 1)]
    for number, each in enumerate(others, start=1):
        await each.open(address, int(port) + number)
        await each.overlay(DIMENSION).join([endpoint.address])
    told: dict[str, Any] = {"name": name, "stored": {}, "read": {}}
    for size in sizes if "examine" not in flags else []:
        holders = await overlay.records.put_value(key_of(name, size), value_of(name, size), now_ms() + HOUR_MS, seq=1)
        told["stored"][size] = holders
    if not seeds:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for size in sizes if "examine" not in flags and "swarm" not in flags else []:
        for attempt in range(1, ATTEMPTS + 1):
            found = await overlay.records.get_value(key_of(other, size), signer_of(other).public_key)
            if found == value_of(other, size):
                told["read"][size] = attempt
                break
    told["contacts"] = [list(contact.address) for contact in overlay.table]
    told["faults"] = endpoint.counters["fault"]
    if "examine" in flags:
        await examine(endpoint, told)
    if "join" in flags:
        await overlay.join(seeds)
        print("joined", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        told["contacts"] = [list(contact.address) for contact in overlay.table]
    if "swarm" in flags:
        told["found"] = await found_by_a_newcomer(endpoint, other, address, int(port) + SWARM)
    print(json.dumps(told), flush=True)
    for each in (endpoint, *others):
        await each.close()


async def found_by_a_newcomer(seed: Endpoint, other: str, address: str, port: int) -> list[Any]:
    """Where one who comes last finds the other host, and who answers it there."""
    newcomer = make("newcomer", client=True)
    await newcomer.open(address, port)
    overlay = newcomer.overlay(DIMENSION)
    await overlay.join([seed.address])
    wanted = make(other, client=True).overlay(DIMENSION).node_id
    found = [contact for contact in await overlay.find(wanted) if contact.node_id == wanted]
    answered = [list(contact.address) for contact in found if (await newcomer.ping(contact.address)).rtt_ms >= 0]
    await newcomer.close()
    return answered


async def examine(endpoint: Endpoint, told: dict[str, Any]) -> None:
    # One look may miss a call that was lost on the way; a server looks again before it gives up.
    for _ in range(EXAMINATIONS):
        try:
            await endpoint.examine_reachability(serve=True)
        except UnreachableError as error:
            told["advice"] = str(error)
        told["reachability"], told["observed"] = endpoint.reachability, endpoint.observed_address
        if endpoint.reachability != "unknown":
            return


if __name__ == "__main__":
    asyncio.run(main())
