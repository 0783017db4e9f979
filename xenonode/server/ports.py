"""What a XenoServer needs of XenoCorp while sessions run: that claims are settled, and reservations taken back.

Decides which failures mean "ask again later" and which mean "no". XenoCorp is never on the path of a running session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from xenonode.control.errors import (
    BAD_PEER,
    BUSY,
    CERTIFICATE_EXPIRED,
    CERTIFICATE_REFUSED,
    CERTIFICATE_REQUIRED,
    INTERNAL,
    LEDGER_DAMAGED,
    TIMEOUT,
    UNAVAILABLE,
    UNREACHABLE,
    WRONG_KEY,
    ControlError,
)
from xenonode.server.errors import CorpAnswerError, CorpAwayError, CorpRefusedError, ServerError

AWAY = frozenset(
    {
        UNREACHABLE,
        TIMEOUT,
        BUSY,
        UNAVAILABLE,
        LEDGER_DAMAGED,
        WRONG_KEY,
        CERTIFICATE_EXPIRED,
        CERTIFICATE_REFUSED,
        CERTIFICATE_REQUIRED,
    }
)
"""Codes of a connection or a ledger that serves nobody just now."""
LATER = AWAY | {INTERNAL, BAD_PEER}
"""Codes that say nothing about the claim itself: the money is still owed, so it is asked for again."""


class CorpPort(Protocol):
    """XenoCorp, as sessions see it. Each raises CorpAwayError, CorpAnswerError or CorpRefusedError."""

    async def claim(self, raw: bytes) -> bytes:
        """The settlement for a signed claim; the same one for a repeat."""
        ...

    async def release(self, raw: bytes) -> None:
        """Hand in a signed release of a reservation; a repeat is harmless."""
        ...


class ControlCorp:
    """XenoCorp over a control connection (implements CorpPort). `call` asks it a method with a body."""

    def __init__(self, call: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        self._call = call

    async def claim(self, raw: bytes) -> bytes:
        """The settlement for a signed claim."""
        settlement = (await self._ask("claim", {"claim": raw})).get("settlement")
        if not isinstance(settlement, bytes):
            raise CorpAnswerError("XenoCorp's answer holds no settlement", "compare the versions", BAD_PEER)
        return settlement

    async def release(self, raw: bytes) -> None:
        """Hand in a signed release of a reservation."""
        await self._ask("reservation.release", {"release": raw})

    async def _ask(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._call(method, body)
        except ControlError as error:
            raise _kind(error.code)(error.message, error.next_step, error.code) from error


def _kind(code: str) -> type[ServerError]:
    if code in AWAY:
        return CorpAwayError
    return CorpAnswerError if code in LATER else CorpRefusedError
