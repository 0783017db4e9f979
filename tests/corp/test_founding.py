"""Founding a XenoCorp in a folder, and loading it again."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from dht.identity import ED25519, load_key
from xenonode.config import ConfigError, CorpConfig
from xenonode.corp.database import open_database
from xenonode.corp.errors import FoundingError
from xenonode.corp.founding import Founded, authority_seed, initialise, load
from xenonode.corp_node import CorpNode
from xenonode.env import LiveEnv
from xenonode.first_schema import first_schema
from xenonode.model.entity import Address, Credential, Network, Trust
from xenonode.model.schema import PublishedSchema

NOW_MS = 1_700_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "corp"


def make(folder: Path) -> Founded:
    config = CorpConfig(folder=folder, udp=Address("127.0.0.1", 4001), control=Address("127.0.0.1", 4002))
    return initialise(folder, config, b"schema", NOW_MS)


def test_a_founded_folder_loads_and_its_network_file_vouches_for_the_issuing_key(folder: Path) -> None:
    founded = make(folder)
    assert load(folder) == founded
    network, envelope = Network.open(founded.network, ED25519)
    assert envelope.key == network.root_key == load_key(folder / "keys" / "root.key").public_key
    assert network.corp_key == founded.keys.node.public_key
    trust = Trust(network, ED25519)
    credential = Credential(1, "client-1", bytes(32), "client", bytes(16), NOW_MS, NOW_MS + 1000, 0)
    assert trust.credential(credential.seal(founded.keys.issuing).raw, NOW_MS) == credential
    with pytest.raises(Exception, match="no issuing key"):
        trust.credential(credential.seal(founded.keys.node).raw, NOW_MS)
    open_database(founded.ledger).close()


def test_serving_needs_no_root_key(folder: Path) -> None:
    founded = make(folder)
    (folder / "keys" / "root.key").unlink()
    assert load(folder) == founded


def test_every_file_is_private(folder: Path) -> None:
    make(folder)
    for path in (folder, *folder.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_folder_is_founded_once(folder: Path) -> None:
    make(folder)
    with pytest.raises(FoundingError, match="already"):
        make(folder)


def test_an_interrupted_founding_is_taken_up_again_with_its_keys(folder: Path) -> None:
    founded = make(folder)
    (folder / "network.xeno").unlink()
    (folder / "keys" / "vault.key").unlink()
    again = make(folder)
    assert again.network == founded.network and load(folder) == again
    open_database(again.ledger).close()


def test_an_empty_folder_says_how_to_found_one(tmp_path: Path) -> None:
    with pytest.raises(FoundingError) as caught:
        load(tmp_path)
    assert "xenonode corp init" in caught.value.next_step


def test_a_schema_may_be_made_by_the_issuing_key(folder: Path) -> None:
    config = CorpConfig(folder=folder, udp=Address("127.0.0.1", 4001), control=Address("127.0.0.1", 4002))
    published = PublishedSchema.of(first_schema(), 64, NOW_MS)
    founded = initialise(folder, config, lambda issuing: published.seal(issuing).raw, NOW_MS)
    assert PublishedSchema.open(founded.schema, ED25519)[1].key == founded.keys.issuing.public_key


def test_settings_that_are_wrong_leave_nothing_behind(folder: Path) -> None:
    config = CorpConfig(
        folder=folder, udp=Address("127.0.0.1", 4001), control=Address("127.0.0.1", 4002), tries=(("price.cpv", 4),)
    )
    with pytest.raises(ConfigError, match="there is no dimension"):
        asyncio.run(CorpNode.found(config, LiveEnv()))
    with pytest.raises(ConfigError, match="udp: 127"):
        asyncio.run(CorpNode.found(replace(config, tries=(), profile="public"), LiveEnv()))
    assert not folder.exists()


def test_a_schema_whose_overlays_have_one_tag_is_not_founded_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.datagram.overlay_tag", lambda network, dimension: len(dimension))
    config = CorpConfig(folder=folder, udp=Address("127.0.0.1", 4001), control=Address("127.0.0.1", 4002))
    published = PublishedSchema.of(first_schema(), 64, NOW_MS)
    with pytest.raises(FoundingError, match="has the tag of"):
        initialise(folder, config, lambda issuing: published.seal(issuing).raw, NOW_MS)
    assert not (folder / "network.xeno").exists()


def test_the_certificate_authority_belongs_to_the_issuing_key(folder: Path) -> None:
    founded = make(folder)
    assert authority_seed(founded.keys.issuing) == authority_seed(load(folder).keys.issuing)
    assert authority_seed(founded.keys.issuing) != authority_seed(founded.keys.node)
