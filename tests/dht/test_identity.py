"""Keys, ids and key files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht.errors import KeyFileError
from dht.identity import ED25519, X25519_EXCHANGE, create_key, load_key, node_id

ORDER = 2**252 + 27742317777372353535851937790883648493
SIGNER = ED25519.generate(bytes(range(32)))


@given(st.binary(max_size=100), st.integers(0, 511))
@settings(max_examples=200)
def test_a_signature_verifies_and_one_flipped_bit_spoils_it(message: bytes, bit: int) -> None:
    signature = SIGNER.sign(message)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert ED25519.verify(SIGNER.public_key, message, signature)
    assert not ED25519.verify(SIGNER.public_key, message, bytes(flipped))
    assert not ED25519.verify(SIGNER.public_key, message + b"x", signature)


def test_a_malleable_signature_is_refused() -> None:
    signature = SIGNER.sign(b"pay")
    other = (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
    assert not ED25519.verify(SIGNER.public_key, b"pay", signature[:32] + other)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"short", b"\xff" * 32])
def test_degenerate_keys_verify_nothing(key: bytes) -> None:
    assert not ED25519.verify(key, b"m", bytes(64))
    assert not ED25519.verify(key, b"m", SIGNER.sign(b"m"))


def test_two_peers_agree_on_a_secret_and_a_zero_key_agrees_on_none() -> None:
    one, two = b"1" * 32, b"2" * 32
    shared = X25519_EXCHANGE.shared(one, X25519_EXCHANGE.public(two))
    assert shared == X25519_EXCHANGE.shared(two, X25519_EXCHANGE.public(one))
    assert X25519_EXCHANGE.shared(one, bytes(32)) is None
    assert X25519_EXCHANGE.shared(one, b"") is None


def test_node_ids_differ_by_every_field_and_fields_do_not_run_together() -> None:
    ids = {
        node_id("cpu", b"k" * 32, b"n"),
        node_id("mem", b"k" * 32, b"n"),
        node_id("cpu", b"l" * 32, b"n"),
        node_id("cpu", b"k" * 32, b"m"),
        node_id("cpuk", b"k" * 31, b"n"),
    }
    assert len(ids) == 5
    assert all(len(each) == 20 for each in ids)


def folder(tmp_path: Path) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    return keys


@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_a_key_file_gives_its_key_back(tmp_path: Path, passphrase: str | None) -> None:
    path = folder(tmp_path) / "node.key"
    made = create_key(path, passphrase=passphrase)
    assert load_key(path, passphrase=passphrase).public_key == made.public_key
    assert path.stat().st_mode & 0o777 == 0o600
    assert made.sign(b"x")[:1] and made.sign.__self__.__repr__().startswith("Ed25519Signer(")  # type: ignore[attr-defined]


def test_a_sealed_key_needs_its_passphrase(tmp_path: Path) -> None:
    path = folder(tmp_path) / "node.key"
    create_key(path, passphrase="right")
    for wrong in (None, "wrong"):
        with pytest.raises(KeyFileError, match="passphrase"):
            load_key(path, passphrase=wrong)


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    path = folder(tmp_path) / "node.key"
    create_key(path)
    with pytest.raises(KeyFileError, match="exists"):
        create_key(path)


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = folder(tmp_path) / "node.key"
    create_key(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_key(path)
    path.chmod(0o600)
    path.parent.chmod(0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        load_key(path)


def test_what_is_not_a_key_file_is_refused(tmp_path: Path) -> None:
    keys = folder(tmp_path)
    with pytest.raises(KeyFileError, match="no key file"):
        load_key(keys / "absent")
    (keys / "folder").mkdir()
    with pytest.raises(KeyFileError, match="not a file"):
        load_key(keys / "folder")
    create_key(keys / "node.key")
    os.symlink(keys / "node.key", keys / "link")
    with pytest.raises(KeyFileError, match="link"):
        load_key(keys / "link")
    plain, sealed = b"xenonode key 1\n", b"xenonode sealed key 1\n"
    for content in (b"", plain + b"zz\n", plain + b"00\n", b"\xff" * 80, sealed + b"00\n"):
        damaged = keys / "damaged"
        damaged.write_bytes(content)
        damaged.chmod(0o600)
        with pytest.raises(KeyFileError):
            load_key(damaged, passphrase="any")
        damaged.unlink()
