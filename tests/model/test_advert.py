"""Adverts and credentials: an advert fits a datagram, proves itself, and proves nothing that is not so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dht.errors import RemoteError
from dht.identity import ED25519, Signer
from xenonode.model.advert import Advert, Location, OfferedEnvironment, verify_advert
from xenonode.model.entity import Address, Credential, Issuer, Network, Trust
from xenonode.model.errors import MessageError, ModelError
from xenonode.model.resources import Prices, Resources

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
ROOT, ISSUING, SERVER, OTHER = (ED25519.generate(bytes([number]) * 32) for number in range(1, 5))
LARGEST_BODY_BYTES = 1_100


def network(issuing: Signer = ISSUING, until_ms: int = NOW_MS + 90 * DAY_MS) -> Network:
    issuer = Issuer(issuing.public_key, NOW_MS - DAY_MS, until_ms).seal(ROOT)
    return Network(
        b"n" * 16,
        "local",
        ROOT.public_key,
        ISSUING.public_key,
        Address("127.0.0.1", 7000),
        (Address("127.0.0.1", 7001),),
        (issuer.raw,),
        bytes(32),
        NOW_MS,
    )


def credential(holder: Signer = SERVER, issuing: Signer = ISSUING, role: str = "server") -> bytes:
    claims = Credential(1, "server-0", holder.public_key, role, bytes(16), NOW_MS - 1000, NOW_MS + 7 * DAY_MS, 0)
    return claims.seal(issuing).raw


TOTAL = Resources(2**40, 2**50, 2**60, 2**40)
ADVERT = Advert(
    seq=2**62,
    issued_ms=NOW_MS,
    expires_ms=NOW_MS + 450_000,
    gone=False,
    credential=credential(),
    country="GB",
    region="eu-west-1-local-zone-12a",
    location=Location(-9_999_999, 9_999_999, -9_999_999, 9_999_999),
    udp=Address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    control=Address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65534),
    cores=4096,
    total=TOTAL,
    available=TOTAL,
    prices=Prices("USD", 2**60, 2**60, 2**60, 2**60),
    environments=tuple(OfferedEnvironment("platform", f"name-{number}", "123.456.789-abc") for number in range(4)),
    features=tuple(f"feature-{number}" for number in range(8)),
    started_ms=NOW_MS - DAY_MS,
    schema_epoch=1,
)
TRUST = Trust(network(), ED25519)


def test_the_largest_realistic_advert_fits_a_datagram() -> None:
    assert len(ADVERT.seal(SERVER).raw) <= LARGEST_BODY_BYTES


def test_a_good_advert_verifies_and_names_its_owner() -> None:
    verified = verify_advert(ADVERT.seal(SERVER).raw, TRUST, NOW_MS + 1)
    assert verified.advert == ADVERT
    assert verified.attributes["owner"] == "server-0"
    assert verified.server_key == SERVER.public_key


@pytest.mark.parametrize(
    ("advert", "signer", "now_ms", "why"),
    [
        (ADVERT, OTHER, NOW_MS, "another key"),
        (ADVERT, SERVER, NOW_MS + 450_000, "expired"),
        (ADVERT, SERVER, NOW_MS - DAY_MS // 2, "not valid yet"),
        (replace(ADVERT, credential=credential(role="client")), SERVER, NOW_MS, "role client"),
        (replace(ADVERT, credential=credential(issuing=OTHER)), SERVER, NOW_MS, "no issuing key"),
        (replace(ADVERT, gone=True), SERVER, NOW_MS, "withdrawn"),
        (replace(ADVERT, udp=Address("8.8.8.8", 53)), SERVER, NOW_MS, "no address for a network of profile 'local'"),
        (replace(ADVERT, control=Address("224.0.0.1", 53)), SERVER, NOW_MS, "no address"),
        (replace(ADVERT, control=Address("a.example", 53)), SERVER, NOW_MS, "no address"),
    ],
)
def test_an_advert_that_does_not_prove_itself_is_refused(advert: Advert, signer: Signer, now_ms: int, why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        verify_advert(advert.seal(signer).raw, TRUST, now_ms)


def test_a_public_network_takes_no_advert_that_leads_to_its_readers_own_machine() -> None:
    public = Trust(replace(network(), profile="public"), ED25519)
    elsewhere = Address("1.1.1.1", 7410)
    verify_advert(replace(ADVERT, udp=elsewhere, control=elsewhere).seal(SERVER).raw, public, NOW_MS)
    for lying in (replace(ADVERT, udp=elsewhere), replace(ADVERT, control=elsewhere)):
        for loopback in (Address("127.0.0.1", 22), Address("::1", 22), Address("10.0.0.1", 22)):
            changed = replace(lying, control=loopback) if lying.udp == elsewhere else replace(lying, udp=loopback)
            with pytest.raises(RemoteError, match="no address"):
                verify_advert(changed.seal(SERVER).raw, public, NOW_MS)


def test_a_lapsed_issuing_key_vouches_for_nobody() -> None:
    lapsed = Trust(network(until_ms=NOW_MS - 1), ED25519)
    with pytest.raises(MessageError, match="issuing key"):
        verify_advert(ADVERT.seal(SERVER).raw, lapsed, NOW_MS)


def test_a_network_whose_issuer_the_root_did_not_sign_is_refused() -> None:
    forged = Issuer(OTHER.public_key, 0, NOW_MS * 2).seal(OTHER).raw
    with pytest.raises(MessageError, match="signed by"):
        Trust(replace(network(), issuers=(forged,)), ED25519)


@pytest.mark.parametrize(
    "change",
    [
        {"available": Resources(2**40 + 1, 0, 0, 0)},
        {"seq": 2**64 - 1},
        {"expires_ms": NOW_MS + 3_600_000},
        {"cores": 0},
        {"features": ("x",) * 9},
    ],
)
def test_an_impossible_advert_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        replace(ADVERT, **change)  # type: ignore[arg-type]
