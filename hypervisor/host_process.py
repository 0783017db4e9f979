"""The one small process that talks to libvirt, and hosts its embedded driver.

Started by remote.py with a socket as its standard input; ends when the other side does, and guests go on. It
answers the typed calls of calls.py and nothing else: it makes XML from validated fields and never takes any in.

    server --- socket ---> reader (main thread) ---> worker threads ---> libvirt
                  ^----------- answers -----------------'    ^--- libvirt's event thread
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hypervisor import calls, embedded, guest_image
from hypervisor.environment import EnvironmentSpec
from hypervisor.errors import HypervisorError, ImageError, InvalidSpecError, RemoteError
from hypervisor.image import Image, load_image
from hypervisor.libvirt_adapter import HostSettings, LibvirtHost
from hypervisor.libvirt_driver import start_events
from hypervisor.reaper import start_reaping

WORKERS = 8  # libvirt's own daemon serves a driver with up to 20; a machine of ours has some ten guests
IN_FLIGHT_MAX = 256
EMBEDDED = "qemu:///embed"


class Service:
    """Answers one server's calls, several at a time."""

    def __init__(self, channel: socket.socket, host: LibvirtHost) -> None:
        self._channel, self._host = channel, host
        self._writing = threading.Lock()
        self._slots = threading.BoundedSemaphore(IN_FLIGHT_MAX)

    def run(self) -> None:
        """Serve until the other side is gone; then finish what was begun."""
        with ThreadPoolExecutor(WORKERS) as workers:
            while True:
                head = self._receive(4)
                if head is None:
                    return
                body = self._receive(calls.frame_length(head))
                if body is None:
                    return
                self._slots.acquire()
                workers.submit(self._answer, calls.decode_frame(body))

    def _answer(self, request: dict[str, Any]) -> None:
        try:
            try:
                reply = {"id": request["id"], "result": dispatch(self._host, request)}
            except HypervisorError as error:
                reply = {"id": request["id"], "error": calls.error_to_fields(error)}
            except Exception as error:
                print(f"unexpected: {error!r}", file=sys.stderr, flush=True)
                fault = RemoteError(f"the hypervisor's process failed ({type(error).__name__}: {error})", "report this")
                reply = {"id": request["id"], "error": calls.error_to_fields(fault)}
            with self._writing:
                self._channel.sendall(calls.encode_frame(reply))
        except OSError:
            return  # the server is gone; run() sees it too
        finally:
            self._slots.release()

    def _receive(self, count: int) -> bytes | None:
        parts = b""
        while len(parts) < count:
            part = self._channel.recv(min(count - len(parts), 1 << 16))
            if not part:
                return None
            parts += part
        return parts


def dispatch(host: LibvirtHost, request: dict[str, Any]) -> Any:
    """One typed call; what is not named here does not exist."""
    method, given = request.get("method"), request.get("parameters")
    if method not in calls.METHODS or not isinstance(given, dict):
        raise InvalidSpecError("there is no such call", f"use one of {', '.join(sorted(calls.METHODS))}")
    match method:
        case "probe":
            return calls.capabilities_to_fields(host.probe())
        case "create":
            spec: EnvironmentSpec = calls.spec_from_fields(_dict(given, "spec"))
            return _fields(host.create(spec))
        case "resize":
            cpu, memory = _optional(given, "cpu_ms_per_s"), _optional(given, "memory_bytes")
            return _fields(host.resize(_id(given), cpu_ms_per_s=cpu, memory_bytes=memory))
        case "pause":
            return host.pause(_id(given))
        case "resume":
            return host.resume(_id(given))
        case "save":
            return host.save(_id(given))
        case "restore":
            return host.restore(_id(given))
        case "stop":
            return calls.usage_to_fields(host.stop(_id(given), grace_ms=_optional(given, "grace_ms") or 0))
        case "destroy":
            return calls.usage_to_fields(host.destroy(_id(given)))
        case "console":
            return calls.bytes_to_text(host.console(_id(given), max_bytes=_optional(given, "max_bytes") or 0))
        case "reconcile":
            return [calls.running_to_fields(running) for running in host.reconcile()]
    ids = given.get("ids")
    if not isinstance(ids, list) or len(ids) > calls.IDS_MAX or not all(isinstance(id, str) for id in ids):
        raise InvalidSpecError("ids must be a list of names", f"at most {calls.IDS_MAX}")
    return {id: calls.usage_to_fields(usage) for id, usage in host.usage(ids).items()}


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _id(given: dict[str, Any]) -> str:
    if not isinstance(given.get("id"), str):
        raise InvalidSpecError("id must be a name", "use the handle's id")
    return str(given["id"])


def _dict(given: dict[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name)
    if not isinstance(value, dict):
        raise InvalidSpecError(f"{name} is missing", "use remote.py")
    return value


def _optional(given: dict[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is not None and type(value) is not int:
        raise InvalidSpecError(f"{name} must be an integer", "use remote.py")
    return value


def open_host(options: argparse.Namespace) -> LibvirtHost:
    """Prepare the root folder, start libvirt's event loop, and connect."""
    test = options.uri.startswith("test:")
    user = embedded.QemuUser(0, 0) if test else embedded.qemu_user(options.guest_user)
    folder = embedded.guests_folder(options.root, user)
    settings = HostSettings(
        options.uri,
        folder,
        options.owner or embedded.owner_tag(options.root),
        user,
        () if test else _images(options.cache),
        options.user_network,
        options.forward_host,
    )
    start_events()
    if options.uri != EMBEDDED:
        return LibvirtHost(settings, _now_ms)
    embedded.write_configuration(folder, user)
    if not embedded.has_virtualisation(Path("/proc/cpuinfo").read_text("utf-8")):
        embedded.hide_kvm(folder)
    start_reaping(folder)
    # A user who may only read the machine's images learns of QEMU alone.
    cache = options.cache if os.access(options.cache, os.W_OK) else folder
    shared = cache / "qemu-capabilities"
    with embedded.locked(shared.parent / "qemu-capabilities.lock", embedded.LEARN_WAIT_S):
        embedded.take_capabilities(shared, folder)
        host = LibvirtHost(dataclasses.replace(settings, uri=f"{EMBEDDED}?root={folder}"), _now_ms)
        host.learn()
        embedded.give_capabilities(shared, folder)
    return host


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _images(cache: Path) -> tuple[Image, ...]:
    folder = guest_image.image_folder(cache)
    if not folder.exists():
        raise ImageError("there is no guest image yet", "run scripts/build_guest_image")
    return (load_image(folder),)


def main() -> int:
    parser = argparse.ArgumentParser(prog="hypervisor.host_process")
    parser.add_argument("--uri", default=EMBEDDED)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--owner")
    parser.add_argument("--guest-user")
    parser.add_argument("--user-network", action="store_true")
    parser.add_argument("--forward-host", default="127.0.0.1")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when this process ends
    channel = socket.socket(fileno=0)
    try:
        options.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        with embedded.locked(options.root / "hypervisor.lock"):
            host = open_host(options)
            channel.sendall(calls.encode_frame({"id": 0, "result": "ready"}))
            try:
                Service(channel, host).run()
            finally:
                host.close()
    except HypervisorError as error:
        channel.sendall(calls.encode_frame({"id": 0, "error": calls.error_to_fields(error)}))
        return 1
    except OSError as error:
        print(f"host_process: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
