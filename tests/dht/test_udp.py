"""The socket: bursts are read in one turn of the loop while answers are awaited, and nothing is lost or raised."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

from dht.datagram import MAX_DATAGRAM_BYTES
from dht.udp import MAX_IN_ONE_TURN, READ_BYTES, UdpSocket


class _Turns:
    """Counts the turns of the loop in which something came."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.turns: list[int] = []
        self.turn = 0

    def deliver(self, data: bytes, address: Any) -> None:
        self.got.append(data)
        self.turns.append(self.turn)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.turn += 1
                await asyncio.sleep(0)


def burst(receiver: UdpSocket, count: int, size_bytes: int = 8) -> list[bytes]:
    sent = [number.to_bytes(4, "big").ljust(size_bytes, b".") for number in range(count)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in sent:
            sender.sendto(data, receiver.bound)
    return sent


def read_a_burst(awaited: list[int], count: int) -> tuple[list[bytes], _Turns, Counter[str]]:
    async def scenario() -> tuple[list[bytes], _Turns, Counter[str]]:
        turns, counters = _Turns(), Counter[str]()
        receiver = await UdpSocket.bind("127.0.0.1", 0, turns.deliver, counters, awaited)
        sent = burst(receiver, count)
        await turns.until(count)
        receiver.close()
        await asyncio.sleep(0)
        return sent, turns, counters

    return asyncio.run(scenario())


def test_a_burst_is_read_in_one_turn_of_the_loop_while_answers_are_awaited() -> None:
    sent, turns, counters = read_a_burst([1], 20)
    assert turns.got == sent and len(set(turns.turns)) == 1
    assert not counters


def test_datagrams_are_read_one_a_turn_where_nothing_is_awaited() -> None:
    sent, turns, _ = read_a_burst([], 5)
    assert turns.got == sent and len(set(turns.turns)) == 5


def test_others_have_their_turn_after_so_many_datagrams() -> None:
    sent, turns, _ = read_a_burst([1], 2 * MAX_IN_ONE_TURN + 1)
    assert turns.got == sent
    assert [turns.turns.count(turn) for turn in sorted(set(turns.turns))] == [MAX_IN_ONE_TURN, MAX_IN_ONE_TURN, 1]


def test_reading_ends_when_the_socket_is_closed_in_the_middle_of_a_burst() -> None:
    async def scenario() -> None:
        got: list[bytes] = []
        counters = Counter[str]()

        def deliver(data: bytes, address: Any) -> None:
            got.append(data)
            receiver.close()

        receiver = await UdpSocket.bind("127.0.0.1", 0, deliver, counters, [1])
        port = receiver.bound[1]
        burst(receiver, 3)
        await asyncio.sleep(0.05)
        assert len(got) == 1 and not counters
        again = await UdpSocket.bind("127.0.0.1", port, deliver, counters)
        again.close()
        await asyncio.sleep(0)

    asyncio.run(scenario())


def test_what_is_too_long_is_seen_as_too_long_at_any_place_in_a_burst() -> None:
    async def scenario() -> None:
        turns = _Turns()
        receiver = await UdpSocket.bind("127.0.0.1", 0, turns.deliver, Counter(), [1])
        burst(receiver, 3, MAX_DATAGRAM_BYTES + 100)
        await turns.until(3)
        assert [len(data) for data in turns.got] == [READ_BYTES] * 3
        receiver.close()

    asyncio.run(scenario())


def test_what_the_socket_cannot_take_now_goes_later_and_what_it_refuses_is_counted() -> None:
    async def scenario() -> None:
        turns, counters = _Turns(), Counter[str]()
        receiver = await UdpSocket.bind("127.0.0.1", 0, turns.deliver, Counter())
        sender = await UdpSocket.bind("127.0.0.1", 0, turns.deliver, counters)

        def refuse(data: bytes, address: Any) -> int:
            raise refusal

        direct, sender._sendto = sender._sendto, refuse
        refusal: OSError = BlockingIOError()
        sender.send(b"later", receiver.bound)
        refusal = OSError("no way there")
        sender.send(b"never", receiver.bound)
        sender._sendto = direct
        sender.send(b"at once", receiver.bound)
        await turns.until(2)
        assert sorted(turns.got) == [b"at once", b"later"]
        assert counters == {"sent": 3, "send-failed": 1}
        sender.close()
        receiver.close()

    asyncio.run(scenario())
