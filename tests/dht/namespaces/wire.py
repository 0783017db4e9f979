"""The wire between two hosts, run in a namespace of its own: loses, reorders, and may translate addresses.

Forwards IPv4 frames between two interfaces (packet sockets), because not every kernel has a queueing discipline that
does this. With a translation, the left host is behind a NAT as homes have them: one outer address, a port of its own
for each inner one, and only who was sent something may answer. Prints what it did as JSON when its input closes.

    python wire.py LEFT RIGHT LEFT_MAC RIGHT_MAC LOSS_PPM REORDER_PPM [INNER OUTER [FORWARDED_PORT]]
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import socket
import sys
from collections import Counter

ETHERNET_BYTES = 14
IPV4 = b"\x08\x00"
ALL_PROTOCOLS = 3
UDP = 17
FIRST_PORT = 40_000
REORDER_S = (0.003, 0.020)


class Wire:
    """Both directions."""

    def __init__(self, arguments: list[str]) -> None:
        left, right, left_mac, right_mac, loss_ppm, reorder_ppm, *translation = arguments
        self.sockets = [self._open(left), self._open(right)]
        self.macs = [bytes.fromhex(mac.replace(":", "")) for mac in (left_mac, right_mac)]
        self.loss_ppm, self.reorder_ppm = int(loss_ppm), int(reorder_ppm)
        self.inner, self.outer = (
            [ipaddress.IPv4Address(each).packed for each in translation[:2]] if translation else (b"", b"")
        )
        self.forwarded = int(translation[2]) if len(translation) > 2 else 0
        self.ports: dict[int, int] = {self.forwarded: self.forwarded}
        self.inner_ports: dict[int, int] = {self.forwarded: self.forwarded}
        self.permitted: set[tuple[int, bytes, int]] = set()
        self.counts: Counter[str] = Counter()
        self.rng = random.Random(4)

    def _open(self, name: str) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        opened.bind((name, ALL_PROTOCOLS))
        opened.setblocking(False)
        return opened

    def readable(self, side: int) -> None:
        """Take what has come in on one side."""
        for _ in range(256):
            try:
                frame, address = self.sockets[side].recvfrom(65_536)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING and frame[12:14] == IPV4:
                self._forward(side, bytearray(frame))

    def _forward(self, side: int, frame: bytearray) -> None:
        counts = self.counts
        counts["frames"] += 1
        counts["largest"] = max(counts["largest"], len(frame) - ETHERNET_BYTES)
        packet = frame[ETHERNET_BYTES:]
        if int.from_bytes(packet[6:8]) & 0x3FFF:
            counts["fragments"] += 1
        if packet[9] == UDP:
            if self.inner and not self._translate(side, packet):
                counts["not_permitted"] += 1
                return
            head = 4 * (packet[0] & 15)
            packet[head + 6 : head + 8] = b"\0\0"  # none: the sender left it to its interface, which is not one
            packet[10:12] = b"\0\0"
            packet[10:12] = _checksum(packet[:head])
        if self.rng.randrange(1_000_000) < self.loss_ppm:
            counts["lost"] += 1
            return
        other = 1 - side
        data = self.macs[other] + self.macs[side] + IPV4 + bytes(packet)
        if self.rng.randrange(1_000_000) < self.reorder_ppm:
            counts["held_back"] += 1
            asyncio.get_running_loop().call_later(self.rng.uniform(*REORDER_S), self._send, other, data)
        else:
            self._send(other, data)

    def _send(self, side: int, data: bytes) -> None:
        try:
            self.sockets[side].send(data)
        except OSError:
            self.counts["not_sent"] += 1

    def _translate(self, side: int, packet: bytearray) -> bool:
        head = 4 * (packet[0] & 15)
        source, to = bytes(packet[12:16]), bytes(packet[16:20])
        source_port, port = int.from_bytes(packet[head : head + 2]), int.from_bytes(packet[head + 2 : head + 4])
        if side == 0:
            outer_port = self.ports.setdefault(source_port, FIRST_PORT + len(self.ports))
            self.inner_ports[outer_port] = source_port
            self.permitted.add((outer_port, to, port))
            packet[12:16] = self.outer
            packet[head : head + 2] = outer_port.to_bytes(2)
            return source == self.inner
        permitted = port == self.forwarded or (port, source, source_port) in self.permitted
        if to != self.outer or not permitted:
            return False
        packet[16:20] = self.inner
        packet[head + 2 : head + 4] = self.inner_ports[port].to_bytes(2)
        return True


def _checksum(head: bytes | bytearray) -> bytes:
    total = sum(int.from_bytes(head[at : at + 2]) for at in range(0, len(head), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2)


async def main() -> None:
    """Forward until the input closes."""
    wire = Wire(sys.argv[1:])
    loop = asyncio.get_running_loop()
    for side in (0, 1):
        loop.add_reader(wire.sockets[side], wire.readable, side)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps(wire.counts), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
