"""The process beside the node that talks to libvirt: what is said where it does not start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hypervisor import remote
from hypervisor.errors import RemoteError


@pytest.mark.parametrize(
    ("uri", "patience_s", "said"),
    [("test:///default", 0.0, "did not start in time"), ("test:///no-such-file", 60.0, "no-such-file")],
)
def test_one_that_does_not_start_is_told_of_with_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, patience_s: float, said: str
) -> None:
    monkeypatch.setattr(remote, "START_TIMEOUT_S", patience_s)
    with pytest.raises(RemoteError, match=said):
        asyncio.run(remote.connect(uri, root=tmp_path))
