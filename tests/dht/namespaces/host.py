"""One host of the test: publishes a value of each size, reads the other's, and tells as JSON what came of it.

    python host.py NAME ADDRESS PORT OTHER_NAME SEED_ADDRESS SEED_PORT SIZES [client]

Without a seed ("-") it begins a network, and serves until its input closes.
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

ISSUER = ED25519.generate(hashlib.sha256(b"issuer").digest())
DIMENSION = "cores"
HOUR_MS = 3_600_000
ATTEMPTS = 5


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def signer_of(name: str) -> Any:
    return ED25519.generate(hashlib.sha256(name.encode()).digest())


def check(raw: bytes, at_ms: int) -> Member:
    envelope = open_envelope(raw, ED25519, "credential")
    if envelope.key != ISSUER.public_key:
        raise RemoteError("a credential of another issuer")
    body = envelope.body
    return Member(body["key"], body["nonce"], body["entity"], body["expires_ms"])


def key_of(name: str, size: int) -> bytes:
    return hashlib.sha256(f"{name} {size}".encode()).digest()[:20]


def value_of(name: str, size: int) -> bytes:
    return random.Random(f"{name} {size}").randbytes(size)


async def main() -> None:
    name, address, port, other, seed_address, seed_port, sizes_text, *flags = sys.argv[1:]
    sizes = [int(text) for text in sizes_text.split(",")]
    signer = signer_of(name)
    credential = seal(
        ISSUER,
        "credential",
        {
            "key": signer.public_key,
            "nonce": signer.public_key[:8],
            "entity": name,
            "expires_ms": now_ms() + HOUR_MS,
        },
    ).raw
    endpoint = Endpoint(
        signer,
        credential,
        check,
        network_id=b"two hosts",
        now_ms=now_ms,
        rng=random.Random(name),
        client="client" in flags,
    )
    await endpoint.open(address, int(port))
    overlay = endpoint.overlay(DIMENSION)
    seeds = [] if seed_address == "-" else [(seed_address, int(seed_port))]
    await overlay.join(seeds)
    told: dict[str, Any] = {"name": name, "stored": {}, "read": {}}
    for size in sizes:
        holders = await overlay.put_value(key_of(name, size), value_of(name, size), now_ms() + HOUR_MS, seq=1)
        told["stored"][size] = holders
    if not seeds:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for size in sizes if seeds or "client" not in flags else []:
        for attempt in range(1, ATTEMPTS + 1):
            found = await overlay.get_value(key_of(other, size), signer_of(other).public_key)
            if found == value_of(other, size):
                told["read"][size] = attempt
                break
    told["contacts"] = [list(contact.address) for contact in overlay.table.by_id.values()]
    told["faults"] = endpoint.counters["fault"]
    told["reachability"] = str(getattr(endpoint, "reachability", ""))
    print(json.dumps(told), flush=True)
    await endpoint.close()


if __name__ == "__main__":
    asyncio.run(main())
