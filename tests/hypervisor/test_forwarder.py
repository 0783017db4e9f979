from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from hypervisor import readiness
from hypervisor.errors import AlreadyExistsError, CapacityError, GuestFailedError
from hypervisor.forwarder import Forwarder


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-test\r\n" + await reader.read())
    await writer.drain()
    writer.close()


async def echo_server() -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


def test_bytes_go_both_ways_and_an_end_of_one_side_reaches_the_other() -> None:
    async def scenario() -> None:
        server, target = await echo_server()
        forwarder = Forwarder("127.0.0.1")
        port = await forwarder.open("one", "127.0.0.1", target)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(300_000))
        writer.write_eof()
        assert len(await reader.read()) == 300_014
        writer.close()
        await forwarder.aclose()
        server.close()

    asyncio.run(scenario())


def test_a_closed_port_cuts_its_connections_and_can_be_opened_again() -> None:
    async def scenario() -> None:
        server, target = await echo_server()
        forwarder = Forwarder("127.0.0.1")
        port = await forwarder.open("one", "127.0.0.1", target)
        with pytest.raises(AlreadyExistsError):
            await forwarder.open("one", "127.0.0.1", target)
        with pytest.raises(CapacityError):
            await forwarder.open("two", "127.0.0.1", target, port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        await forwarder.close("one")
        await forwarder.close("one")
        assert await reader.read() == b""
        writer.close()
        assert await forwarder.open("one", "127.0.0.1", target, port) == port
        await forwarder.aclose()
        server.close()

    asyncio.run(scenario())


def test_a_guest_that_is_not_there_ends_the_connection() -> None:
    async def scenario() -> None:
        forwarder = Forwarder("127.0.0.1")
        server, target = await echo_server()
        server.close()
        await server.wait_closed()
        port = await forwarder.open("one", "127.0.0.1", target)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        await forwarder.aclose()

    asyncio.run(scenario())


@contextlib.contextmanager
def deaf_guest() -> Iterator[socket.socket]:
    """A listener whose queue is full: who else connects waits, as for a guest whose network is not up yet."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(socket.create_connection(listener.getsockname()))
        yield listener


def test_tries_that_were_given_up_do_not_reach_a_guest_once_it_listens() -> None:
    async def scenario() -> None:
        with deaf_guest() as listener:
            forwarder = Forwarder("127.0.0.1")
            port = await forwarder.open("one", "127.0.0.1", listener.getsockname()[1])
            with pytest.raises(GuestFailedError):
                await readiness.wait_for_ssh("127.0.0.1", port, timeout_ms=1500)
            listener.setblocking(False)
            first, _ = await asyncio.get_running_loop().sock_accept(listener)  # the one that filled the queue
            first.close()
            with pytest.raises(TimeoutError):  # a connection that waits knocks again after 1, 3, 7 s
                await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), 3)
            await forwarder.aclose()

    asyncio.run(scenario())


def test_cutting_a_connection_is_nobodys_error(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server, target = await echo_server()
        forwarder = Forwarder("127.0.0.1")
        port = await forwarder.open("one", "127.0.0.1", target)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        await forwarder.close("one")
        writer.close()
        server.close()

    asyncio.run(scenario())
    assert not caplog.records


def test_readiness_waits_for_a_banner_and_for_nothing_less() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-dropbear\r\n")
        writer.close()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scenario() -> None:
        for handler, ready in ((greet, True), (silent, False)):
            server = await asyncio.start_server(handler, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            if ready:
                assert await readiness.wait_for_ssh("127.0.0.1", port) == "SSH-2.0-dropbear"
            else:
                with pytest.raises(GuestFailedError):
                    await readiness.wait_for_ssh("127.0.0.1", port, timeout_ms=500)
            server.close()

    asyncio.run(scenario())
