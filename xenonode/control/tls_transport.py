"""Live connections: TLS 1.3 by the ssl module, both ends proved by the Ed25519 key in their certificate.

Decides: which of TLS's failures a user is told as what. Leaves to others: certificates and contexts (`tls`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from dht.contact import address_text
from xenonode.control.errors import BAD_PEER, CERTIFICATE_EXPIRED, CERTIFICATE_REFUSED, ControlError, LocalError
from xenonode.control.refusals import unreachable, wrong_key
from xenonode.control.stream import Accepted, Failed, Stream
from xenonode.control.tls import (
    HANDSHAKE_TIMEOUT_S,
    TlsIdentity,
    certificate_key,
    client_context,
    load_identity,
    server_context,
)

SHUTDOWN_TIMEOUT_S = 2.0  # for the peer's close_notify, then we stop waiting
EXPIRED, NOT_YET_VALID = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, ..._NOT_YET_VALID


class TlsTransport:
    """Mutual TLS. `identity` None connects anonymously; no `authorities` means the server's key must be pinned."""

    def __init__(self, identity: TlsIdentity | None, authorities: Sequence[bytes]) -> None:
        self._authorities = tuple(authorities)
        self._listening: list[ssl.SSLContext] = []  # one for each port that this member listens on
        self.renew(identity)

    def renew(self, identity: TlsIdentity | None) -> None:
        """Use another certificate for connections from now on, also on ports that listen already."""
        self._identity = identity
        if identity is not None:
            for context in self._listening:
                load_identity(context, identity)
        self._client_context = client_context(identity, self._authorities)

    async def dial(self, host: str, port: int, expected_key: bytes | None) -> Stream:
        """Connect and prove both ends."""
        if expected_key is None and not self._authorities:
            raise LocalError("without XenoCorp's certificate the server's key must be given")
        try:
            reader, writer = await asyncio.open_connection(
                host,
                port,
                ssl=self._client_context,
                server_hostname="",
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
        except ssl.SSLCertVerificationError as error:
            raise _refused_certificate(error) from error
        except ssl.SSLError as error:
            text = f"The TLS handshake with {address_text((host, port))} failed ({error.reason})."
            raise ControlError(BAD_PEER, text, "Check that this is a control address of this platform.") from error
        except OSError as error:
            raise unreachable(host, port, str(error)) from error
        stream = Stream(reader, writer)
        stream.peer_key = _peer_key(stream)
        if stream.peer_key is None or (expected_key is not None and stream.peer_key != expected_key):
            stream.abort()
            raise wrong_key(expected_key or b"", stream.peer_key or b"")
        return stream

    async def listen(
        self, host: str, port: int, *, anonymous: bool, accepted: Accepted, failed: Failed
    ) -> asyncio.AbstractServer:
        """Accept connections whose handshake succeeded."""
        if self._identity is None:
            raise LocalError("a server needs a certificate")

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accepted(Stream(reader, writer))

        context = server_context(self._identity, self._authorities, anonymous=anonymous, failed=failed)
        self._listening.append(context)
        return await asyncio.start_server(
            on_connection,
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        )

    async def identify(self, stream: Stream) -> bytes | None:
        """Return the key of who connected: TLS has proved it."""
        return _peer_key(stream)


def _peer_key(stream: Stream) -> bytes | None:
    session = stream.tls()
    certificate = None if session is None else session.getpeercert(binary_form=True)
    return None if certificate is None else certificate_key(certificate)


def _refused_certificate(error: ssl.SSLCertVerificationError) -> ControlError:
    if error.verify_code == EXPIRED:
        text = "The server's certificate has expired."
        return ControlError(CERTIFICATE_EXPIRED, text, "Its owner must renew it; check your own clock too.")
    if error.verify_code == NOT_YET_VALID:
        return ControlError(CERTIFICATE_REFUSED, "The server's certificate is not valid yet.", "Check your clock.")
    text = f"The server's certificate was not issued by this platform's XenoCorp ({error.verify_message})."
    return ControlError(CERTIFICATE_REFUSED, text, "Check the address, and whose platform you registered with.")
