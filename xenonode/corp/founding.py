"""Founding a XenoCorp: its keys, its network file, its ledger; and loading them again.

    folder/keys/root.key      certifies issuing keys; belongs offline after founding, and is never loaded to serve
    folder/keys/issuing.key   signs credentials and money messages for 90 days
    folder/keys/node.key      XenoCorp as a peer: control connections and overlays
    folder/keys/operator.key  may credit accounts and audit
    folder/keys/vault.key     seals registrations
    folder/network.xeno, folder/schema.xeno, folder/ledger.sqlite

`found` is pure, so that a simulated XenoCorp is founded by the same rules without a disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dht.identity import ED25519, Scheme, Signer, create_key, load_key
from xenonode.config import CorpConfig
from xenonode.corp.database import create_database
from xenonode.corp.errors import FoundingError
from xenonode.folder import StateFolder
from xenonode.model.entity import Issuer, Network
from xenonode.model.errors import MessageError
from xenonode.model.schema import PublishedSchema, check_tags

ISSUING_KEY_MS = 90 * 86_400_000
NETWORK_FILE, SCHEMA_FILE, LEDGER_FILE = "network.xeno", "schema.xeno", "ledger.sqlite"
_KEY_FOLDER = "keys"
MakeSchema = Callable[[Signer], bytes]
"""Makes the published schema, signed with the issuing key."""


@dataclass(frozen=True, slots=True)
class CorpKeys:
    """The keys that a serving XenoCorp needs; the root key is not among them."""

    issuing: Signer
    node: Signer
    operator: Signer
    vault: Signer


@dataclass(frozen=True, slots=True)
class Founded:
    """A XenoCorp as it was founded: keys, signed network file, published schema, and where its ledger is."""

    keys: CorpKeys
    network: bytes
    schema: bytes
    ledger: Path


def corp_keys(scheme: Scheme, seed: Callable[[str], bytes]) -> tuple[Signer, CorpKeys]:
    """Root key and serving keys from seeds (`Env.seed`), for a XenoCorp without key files."""
    made = {name: scheme.generate(seed(f"corp.{name}")) for name in ("root", "issuing", "node", "operator", "vault")}
    return made["root"], CorpKeys(made["issuing"], made["node"], made["operator"], made["vault"])


def found(root: Signer, keys: CorpKeys, config: CorpConfig, schema: bytes, now_ms: int) -> bytes:
    """The signed network file of a new network, whose first seed is XenoCorp itself."""
    issuer = Issuer(keys.issuing.public_key, now_ms, now_ms + ISSUING_KEY_MS).seal(root)
    network = Network(
        network_id=network_id(root),
        profile=config.profile,
        root_key=root.public_key,
        corp_key=keys.node.public_key,
        corp_control=config.control,
        seeds=(config.udp,),
        issuers=(issuer.raw,),
        schema_hash=hashlib.sha256(schema).digest(),
        issued_ms=now_ms,
    )
    return network.seal(root).raw


def network_id(root: Signer) -> bytes:
    """The id of the network whose root key this is."""
    return hashlib.sha256(b"xeno-network1" + root.public_key).digest()[:16]


def _checked(schema_raw: bytes, root: Signer) -> bytes:
    """A schema that was signed for this network. Raises FoundingError where two of its overlays have one tag."""
    published, _ = PublishedSchema.open(schema_raw, ED25519)
    try:
        check_tags(published, network_id(root))
    except MessageError as error:
        text = "remove this folder, which no network has used yet, and found the network again"
        raise FoundingError(str(error), text) from None
    return schema_raw


def initialise(folder: Path, config: CorpConfig, schema: bytes | MakeSchema, now_ms: int) -> Founded:
    """Make everything in a new folder; a founding that was interrupted is taken up again, keys and all.

    Raises FoundingError, KeyFileError or XenoError.
    """
    state = StateFolder(folder).prepare()
    if state.file(NETWORK_FILE).exists():
        raise FoundingError(f"{folder} is a XenoCorp already", "choose another folder, or run: xenonode corp serve")
    names = ("root", "issuing", "node", "operator", "vault")
    signers = [_key(state.file(_KEY_FOLDER, f"{name}.key")) for name in names]
    root, keys = signers[0], CorpKeys(*signers[1:])
    schema_raw = schema if isinstance(schema, bytes) else _checked(schema(keys.issuing), root)
    network = found(root, keys, config, schema_raw, now_ms)
    state.write(SCHEMA_FILE, schema_raw)
    state.file(LEDGER_FILE).unlink(
        missing_ok=True
    )  # of an interrupted founding: without a network file it was never used
    create_database(state.file(LEDGER_FILE))
    # The network file comes last: with it, and only with it, the folder is a XenoCorp's.
    state.write(NETWORK_FILE, network)
    return Founded(keys, network, schema_raw, state.file(LEDGER_FILE))


def load(folder: Path) -> Founded:
    """What `initialise` made. Raises FoundingError or KeyFileError."""
    state = StateFolder(folder)
    try:
        network, schema = state.file(NETWORK_FILE).read_bytes(), state.file(SCHEMA_FILE).read_bytes()
    except OSError as error:
        message = f"{folder} is no XenoCorp's folder: {error.strerror} ({os.path.basename(error.filename or '')})"
        raise FoundingError(message, f'run: xenonode corp init, with folder = "{folder}"') from None
    names = ("issuing", "node", "operator", "vault")
    keys = CorpKeys(*(load_key(state.file(_KEY_FOLDER, f"{name}.key")) for name in names))
    return Founded(keys, network, schema, state.file(LEDGER_FILE))


def _key(path: Path) -> Signer:
    return load_key(path) if path.exists() else create_key(path)


def authority_seed(issuing: Signer) -> bytes:
    """The seed of XenoCorp's certificate authority for TLS, which rotates with the issuing key."""
    return hashlib.sha256(issuing.sign(b"xeno-tls-authority1")).digest()
