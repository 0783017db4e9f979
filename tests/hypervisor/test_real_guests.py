"""What only real guests on the embedded default can show: several servers, kills, caps, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypervisor import guest_image, readiness, remote
from hypervisor.embedded import owner_tag
from hypervisor.environment import State
from hypervisor.errors import GuestFailedError, SoftwareMissingError

from .machines import RealBench, machine

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True, scope="module")
def image() -> None:
    guest_image.build(guest_image.default_cache())


def our_interfaces(owner: str) -> list[str]:
    shown = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True)
    return [link["ifname"] for link in json.loads(shown.stdout) if owner in link["ifname"]]


def test_eight_servers_on_one_machine_start_together_and_never_share_an_address() -> None:
    async def scenario() -> None:
        async with machine(remote.EMBEDDED) as bench:
            assert isinstance(bench, RealBench)
            others = await asyncio.gather(*(bench.open(f"server{number}") for number in range(7)))
            servers = [bench.hypervisor, *others]
            try:
                handles = await asyncio.gather(*(server.create(bench.spec("one")) for server in servers[:3]))
                assert len({handle.ssh_host for handle in handles}) == 3
                for server in servers[:3]:
                    assert [found.handle.id for found in await server.reconcile()] == ["one"]
                for server in servers[3:]:
                    assert await server.reconcile() == []
            finally:
                for server in servers[:3]:
                    await server.destroy("one")
                await asyncio.gather(*(server.aclose() for server in others))

    asyncio.run(scenario())


SERVER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:3]
from hypervisor import hostkeys, remote
from hypervisor.environment import EnvironmentSpec
async def main():
    hypervisor = await remote.connect(root=Path(sys.argv[1]))
    key = hostkeys.host_key(bytes(32))
    await hypervisor.create(EnvironmentSpec("one", "micro", 500, 128 << 20, ssh_host_key=key))
    print(hypervisor.process_id, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_killed_servers_guests_live_on_and_its_small_process_ends() -> None:
    async def scenario() -> None:
        async with machine(remote.EMBEDDED) as bench:
            assert isinstance(bench, RealBench)
            root = bench.folder / "killed"
            source = str(Path(__file__).parents[2])
            server = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SERVER, str(root), source, stdout=subprocess.PIPE
            )
            assert server.stdout is not None
            small_process = int(await server.stdout.readline())
            server.send_signal(signal.SIGKILL)
            await server.wait()
            again = await bench.open("killed")
            try:
                # It could only be opened because the lock was let go of: the small process has ended.
                assert again.process_id != small_process
                [running] = await again.reconcile()
                assert (running.handle.id, running.state) == ("one", State.RUNNING)
                await bench.ready(running.handle)
                await again.destroy("one")
            finally:
                await again.aclose()

    asyncio.run(scenario())


def test_a_network_cap_holds_both_ways_and_nothing_is_left_behind() -> None:
    async def scenario() -> None:
        async with machine(remote.EMBEDDED) as bench:
            assert isinstance(bench, RealBench)
            owner = owner_tag(bench.folder / "root")
            handle = await bench.hypervisor.create(bench.spec("one", cpu_ms_per_s=1000, net_bit_per_s=4_000_000))
            await bench.ready(handle)
            started = time.monotonic()
            await bench.command(handle, "cat > /dev/null", bytes(1_000_000))
            towards_s = time.monotonic() - started
            started = time.monotonic()
            assert len(await bench.command(handle, "dd if=/dev/zero bs=1000 count=1000 2>/dev/null")) == 1_000_000
            away_s = time.monotonic() - started
            # A megabyte at 4 Mbit/s takes 2 s; without a cap the emulated guest moves it in some 0.3 s.
            assert towards_s > 1.6, towards_s
            assert away_s > 1.6, away_s
            assert our_interfaces(owner) != []
            await bench.hypervisor.destroy("one")
            assert our_interfaces(owner) == []

    asyncio.run(scenario())


def test_a_guest_can_answer_but_cannot_reach_the_machines_own_services() -> None:
    async def scenario() -> None:
        async with machine(remote.EMBEDDED) as bench:
            assert isinstance(bench, RealBench)
            handle = await bench.hypervisor.create(bench.spec("one", cpu_ms_per_s=1000))
            await bench.ready(handle)
            reached = []
            service = await asyncio.start_server(lambda reader, writer: reached.append(writer), "0.0.0.0", 0)
            port = service.sockets[0].getsockname()[1]
            gateway = handle.ssh_host.rsplit(".", 1)[0] + ".1"
            tried = await bench.command(handle, f"nc -w 2 {gateway} {port} </dev/null || echo refused")
            assert tried == b"refused\n"
            assert reached == []
            service.close()

    asyncio.run(scenario())


def test_a_guest_that_powers_itself_off_is_seen_as_stopped_and_keeps_its_counters() -> None:
    async def scenario() -> None:
        async with machine(remote.EMBEDDED) as bench:
            assert isinstance(bench, RealBench)
            handle = await readiness.start(bench.hypervisor, bench.spec("one"))
            [running] = await bench.hypervisor.reconcile()
            assert running.cpu_ms_per_s == 400
            before = (await bench.hypervisor.usage(["one"]))["one"]
            await bench.command(handle, "poweroff </dev/null >/dev/null 2>&1 &")
            for _ in range(200):
                usage = (await bench.hypervisor.usage(["one"]))["one"]
                if usage.state is not State.RUNNING:
                    break
                await asyncio.sleep(0.1)
            assert usage.state is State.STOPPED
            assert usage.cpu_ns is not None and before.cpu_ns is not None
            assert usage.cpu_ns >= before.cpu_ns

    asyncio.run(scenario())


def test_a_guest_that_does_not_answer_in_time_is_taken_away_again() -> None:
    async def scenario() -> None:
        async with machine(remote.EMBEDDED) as bench:
            with pytest.raises(GuestFailedError):
                await readiness.start(bench.hypervisor, bench.spec("one"), timeout_ms=300)
            assert await bench.hypervisor.reconcile() == []

    asyncio.run(scenario())


def test_a_hypervisor_that_is_not_there_is_named_with_what_to_install(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(SoftwareMissingError, match="apt-get install"):
            await remote.connect("xen:///system", root=tmp_path / "root")

    asyncio.run(scenario())
