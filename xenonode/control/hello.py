"""The hello: how two ends prove their keys where there is no TLS, that is, in simulation.

Each end sends a fresh nonce and signs both nonces and both keys under its role's label, so an old hello cannot be
replayed, nor one role's turned into the other's. It binds identity only: nothing is encrypted, so a live node never
uses it. The TLS handshake decides the same question live (`tls_transport`).

    client > {hello: version, key, nonce}      server > {key, nonce, signature}      client > {signature}
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from dht.identity import Scheme, Signer
from dht.wire import encode
from xenonode.control.errors import CERTIFICATE_REFUSED, WRONG_KEY, ControlError, FrameError, RemoteError
from xenonode.control.messages import error_from_fields
from xenonode.control.refusals import unreachable, wrong_key
from xenonode.control.stream import Accepted, Failed, Stream

VERSION = 1
NONCE_BYTES = KEY_BYTES = 32
SIGNATURE_BYTES = 64
HELLO_TIMEOUT_MS = 5_000  # three messages; some round trips on the worst path, with retransmission
CLIENT, SERVER = b"xeno-hello-client\0", b"xeno-hello-server\0"


class HelloTransport:
    """Plain streams with a signed hello. `signer` None connects anonymously (and cannot listen)."""

    def __init__(self, scheme: Scheme, signer: Signer | None, rng: random.Random) -> None:
        self._scheme, self._signer, self._rng = scheme, signer, rng

    async def dial(self, host: str, port: int, expected_key: bytes | None) -> Stream:
        """Connect and prove both ends."""
        try:
            stream = Stream(*await asyncio.open_connection(host, port))
        except OSError as error:
            raise unreachable(host, port, str(error)) from error
        try:
            await self._greet(stream, expected_key)
        except RemoteError as error:
            stream.abort()
            raise unreachable(host, port, str(error)) from error
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _greet(self, stream: Stream, expected_key: bytes | None) -> None:
        own_key = b"" if self._signer is None else self._signer.public_key
        own_nonce = self._rng.randbytes(NONCE_BYTES)
        await stream.send({"hello": VERSION, "key": own_key, "nonce": own_nonce})
        answer = await _receive(stream, {"key": KEY_BYTES, "nonce": NONCE_BYTES, "signature": SIGNATURE_BYTES})
        if expected_key is not None and answer["key"] != expected_key:
            raise wrong_key(expected_key, answer["key"])
        transcript = encode([own_key, own_nonce, answer["key"], answer["nonce"]])
        if not self._scheme.verify(answer["key"], SERVER + transcript, answer["signature"]):
            raise ControlError(WRONG_KEY, "The server could not prove the key it named.", "Do not use this server.")
        signature = b"" if self._signer is None else self._signer.sign(CLIENT + transcript)
        await stream.send({"signature": signature})
        stream.peer_key = answer["key"]

    async def listen(
        self, host: str, port: int, *, anonymous: bool, accepted: Accepted, failed: Failed
    ) -> asyncio.AbstractServer:
        """Accept connections; the server decides about anonymous ones after `identify`."""

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accepted(Stream(reader, writer))

        return await asyncio.start_server(on_connection, host, port)

    async def identify(self, stream: Stream) -> bytes | None:
        """Prove ourselves to who connected, and return the key it proves."""
        assert self._signer is not None, "a server has a key"
        hello = await _receive(stream, {"hello": None, "key": None, "nonce": NONCE_BYTES})
        if hello["hello"] != VERSION or len(hello["key"]) not in (0, KEY_BYTES):
            raise FrameError("a hello of another version, or with a key of another size")
        own_nonce = self._rng.randbytes(NONCE_BYTES)
        transcript = encode([hello["key"], hello["nonce"], self._signer.public_key, own_nonce])
        signature = self._signer.sign(SERVER + transcript)
        await stream.send({"key": self._signer.public_key, "nonce": own_nonce, "signature": signature})
        proof = await _receive(stream, {"signature": None})
        if not hello["key"]:
            return None
        if not self._scheme.verify(hello["key"], CLIENT + transcript, proof["signature"]):
            raise ControlError(CERTIFICATE_REFUSED, "You could not prove the key you named.", "Check your key file.")
        key: bytes = hello["key"]
        return key


async def _receive(stream: Stream, sizes: dict[str, int | None]) -> dict[str, Any]:
    message = await stream.receive(idle_ms=HELLO_TIMEOUT_MS, frame_ms=HELLO_TIMEOUT_MS)
    if message is not None and message.keys() == {"error"}:  # refused before any hello: too many connections
        raise error_from_fields(message["error"])
    if message is None or message.keys() != sizes.keys():
        raise FrameError("the peer does not say hello as it should")
    for name, size in sizes.items():
        value = message[name]
        if name != "hello" and (not isinstance(value, bytes) or (size is not None and len(value) != size)):
            raise FrameError(f"the hello's {name} is not {size or 'some'} bytes")
    return message
