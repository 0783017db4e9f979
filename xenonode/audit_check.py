"""Checking a XenoServer's audit log from outside: by its owner, a client or an investigator with a copy of the folder.

Decides where the log and its checkpoints lie in a folder and what "no log" means; what is sound is the log's own rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dht.identity import ED25519
from xenonode.errors import XenoError
from xenonode.server.audit_log import CHECKPOINTS_NAME, NAME, Verdict, split_checkpoints, verify


def verify_folder(folder: Path, public_key: bytes, heads: Sequence[bytes] = ()) -> Verdict:
    """Check the log in `folder`; `heads` are those in usage records that a client holds. Raises XenoError: no log."""
    log, signed = folder / NAME, folder / CHECKPOINTS_NAME
    try:
        data, checkpoints = log.read_bytes(), split_checkpoints(signed.read_bytes())
    except OSError as error:
        next_step = f"name the folder that holds {NAME} and {CHECKPOINTS_NAME}"
        raise XenoError(f"{error.filename}: {error.strerror}", next_step, "no_log") from error
    if not checkpoints:
        text = f"{signed} holds no checkpoint, so nothing proves that the log is whole"
        raise XenoError(text, "ask the server for its newest checkpoint (audit.head)", "no_checkpoint")
    return verify(data, public_key, checkpoints, ED25519, heads=heads)
