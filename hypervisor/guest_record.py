"""What our own side must remember of each guest: written before it starts, so that nothing is ever lost sight of.

One folder a guest; the record is replaced atomically. Counters of an earlier life of the same guest (before a
save) are kept as a base, because the hypervisor starts counting from zero when the guest is restored.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hypervisor.adapter import Handle
from hypervisor.environment import EnvironmentSpec, State, Usage
from hypervisor.errors import RemoteError

RECORD_VERSION = 1
RECORD_NAME = "record.json"
NOTE_NAME = "usage.json"
COUNTERS = ("cpu_ns", "net_rx_bytes", "net_tx_bytes", "disk_read_bytes", "disk_written_bytes")


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """`spec` without its secret host key; `index` is the guest's place in the subnet; `last` its last usage."""

    spec: EnvironmentSpec
    handle: Handle
    index: int
    state: State
    base: Usage | None = None
    last: Usage | None = None


def to_json(record: GuestRecord) -> str:
    spec = dataclasses.asdict(record.spec)
    del spec["ssh_host_key"]
    fields = {
        "version": RECORD_VERSION,
        "spec": spec,
        "handle": dataclasses.asdict(record.handle),
        "index": record.index,
        "state": record.state,
        "base": None if record.base is None else dataclasses.asdict(record.base),
        "last": None if record.last is None else dataclasses.asdict(record.last),
    }
    return json.dumps(fields)


def from_json(text: str) -> GuestRecord:
    try:
        fields = json.loads(text)
        if fields["version"] != RECORD_VERSION:
            raise RemoteError(f"guest record version {fields['version']!r} is not known here", "use the newer program")
        spec = dict(fields["spec"])
        spec["authorized_keys"] = tuple(spec["authorized_keys"])
        return GuestRecord(
            EnvironmentSpec(**spec),
            Handle(**fields["handle"]),
            int(fields["index"]),
            State(fields["state"]),
            _usage(fields["base"]),
            _usage(fields["last"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteError(
            f"a guest record cannot be read ({error})", "destroy the guest by hand, then its folder"
        ) from None


def _usage(fields: dict[str, object] | None) -> Usage | None:
    if fields is None:
        return None
    return Usage(**{**fields, "state": State(str(fields["state"]))})  # type: ignore[arg-type]


def add_base(base: Usage | None, current: Usage) -> Usage:
    """Cumulative counters: those of earlier lives plus those of this one."""
    if base is None:
        return current
    summed = {}
    for counter in COUNTERS:
        earlier, now = getattr(base, counter), getattr(current, counter)
        summed[counter] = now if now is None or earlier is None else earlier + now
    return dataclasses.replace(current, **summed)


def never_fall(last: Usage | None, current: Usage) -> Usage:
    """A sample whose counters are no lower than the last one's: an ending guest's may be read as zero."""
    if last is None:
        return current
    raised = {}
    for counter in COUNTERS:
        earlier, now = getattr(last, counter), getattr(current, counter)
        raised[counter] = now if now is None or earlier is None else max(earlier, now)
    return dataclasses.replace(current, **raised)


class GuestRecords:
    """All guests' records below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    def folder(self, id: str) -> Path:
        return self._folder / id

    def ids(self) -> list[str]:
        return sorted(path.parent.name for path in self._folder.glob(f"*/{RECORD_NAME}"))

    def load(self, id: str) -> GuestRecord | None:
        try:
            record = from_json((self.folder(id) / RECORD_NAME).read_text("utf-8"))
        except FileNotFoundError:
            return None
        noted = self._noted(id)
        if noted is not None and (record.last is None or noted.at_ms > record.last.at_ms):
            return dataclasses.replace(record, last=never_fall(record.last, noted))
        return record

    def note(self, id: str, usage: Usage) -> None:
        """Keep a sample that was handed out, so that no later one falls behind it.

        Not forced to disk: it must outlive our process, and a machine that loses power loses its guests too.
        """
        fresh = self.folder(id) / f"{NOTE_NAME}.new"
        fresh.write_text(json.dumps(dataclasses.asdict(usage)), "utf-8")
        fresh.replace(self.folder(id) / NOTE_NAME)

    def _noted(self, id: str) -> Usage | None:
        try:
            return _usage(json.loads((self.folder(id) / NOTE_NAME).read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # cut short by a power failure: the record itself still holds

    def store(self, record: GuestRecord) -> None:
        folder = self.folder(record.spec.name)
        folder.mkdir(mode=0o711, exist_ok=True)
        fresh = folder / f"{RECORD_NAME}.new"
        with fresh.open("w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(to_json(record))
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(folder / RECORD_NAME)

    def remove(self, id: str) -> None:
        # The record goes last: while it is there, what is left of the guest can still be found.
        folder = self.folder(id)
        for path in sorted(folder.iterdir()):
            if path.name != RECORD_NAME:
                path.unlink()
        shutil.rmtree(folder)
