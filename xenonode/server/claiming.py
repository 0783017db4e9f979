"""Claims and releases on their way to XenoCorp: repeated byte for byte until answered, so that each counts once.

Decides when to ask again; which claim is due is `session_rules`' business. While XenoCorp is away, all wait in
the journal, and sessions go on. What it answers wrongly is asked for again later and later, or beside a new claim,
which does not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from dht.errors import RemoteError
from xenonode.model.entity import Trust
from xenonode.model.errors import MessageError
from xenonode.model.money import Settlement
from xenonode.server.errors import CorpAwayError, CorpRefusedError, NotKeptError
from xenonode.server.ports import CorpPort
from xenonode.server.releasing import Releases
from xenonode.server.session_events import ClaimRefused, ClaimSettled, Event
from xenonode.server.session_state import PendingClaim, Session

logger = logging.getLogger("xenonode.server.claiming")
RETRY_MIN_MS = 1_000
RETRY_MAX_MS = 300_000
"""After an outage of XenoCorp every server comes back within five minutes, spread by the jitter."""


class ClaimPump:
    """Sends pending claims one after another. `apply` tells a session what came of its claim."""

    def __init__(
        self,
        corp: CorpPort,
        trust: Trust,
        sessions: Callable[[], Mapping[bytes, Session]],
        apply: Callable[[bytes, Event], Awaitable[Session]],
        releases: Releases,
        *,
        wall_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._corp, self._trust, self._sessions, self._apply = corp, trust, sessions, apply
        self._releases, self._wall_ms, self._rng = releases, wall_ms, rng
        self._wake = asyncio.Event()
        self.retry_ms = 0
        """How long the pump waits before it asks again; 0 while XenoCorp answers."""

    def wake(self) -> None:
        """A claim or a release was signed."""
        self._wake.set()

    async def run(self) -> None:
        """Send claims for ever; end it by cancelling."""
        again_ms = 0
        while True:
            self._wake.clear()
            try:
                again_ms = 0 if await self._send_all() else _longer(again_ms)
                self.retry_ms = 0
            except (CorpAwayError, OSError, TimeoutError) as error:
                logger.info("claims and releases wait: %s", error)
                self.retry_ms = _longer(self.retry_ms)
                await asyncio.sleep(self._jittered_s(self.retry_ms))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._jittered_s(again_ms) if again_ms else None):
                    await self._wake.wait()

    def _jittered_s(self, wait_ms: int) -> float:
        return wait_ms * self._rng.uniform(0.5, 1.0) / 1000

    async def _send_all(self) -> bool:
        """Send everything that waits once; whether all was answered, and the answers are kept.

        One that is answered wrongly waits for the next time; the others are sent all the same.
        """
        try:
            return await self._send_each()
        except NotKeptError as error:
            logger.info("an answer of XenoCorp's cannot be kept, and will be asked for again: %s", error)
            return False

    async def _send_each(self) -> bool:
        answered = [await self._release(*each) for each in self._releases.pending()]
        for id, session in list(self._sessions().items()):
            if session.claim is not None:
                answered.append(await self._send(id, session.claim))
        return all(answered)

    async def _send(self, id: bytes, claim: PendingClaim) -> bool:
        try:
            raw = await self._corp.claim(claim.raw)
            settlement = self._check(id, claim, raw)
        except CorpRefusedError as refusal:
            logger.warning("claim for session %s refused: %s", id.hex(), refusal.message)
            await self._apply(id, ClaimRefused(refusal.message))
            return True
        except RemoteError as error:
            logger.info("claim for session %s is answered wrongly: %s", id.hex(), error)
            return False
        await self._apply(id, ClaimSettled(settlement, raw))
        return True

    async def _release(self, reservation: bytes, raw: bytes) -> bool:
        try:
            await self._corp.release(raw)
        except CorpRefusedError as refusal:
            logger.warning("reservation %s cannot be given up: %s", reservation.hex(), refusal.message)
        except RemoteError as error:
            logger.info("the release of reservation %s is answered wrongly: %s", reservation.hex(), error)
            return False
        self._releases.answered(reservation)
        return True

    def _check(self, id: bytes, claim: PendingClaim, raw: bytes) -> Settlement:
        settlement, envelope = Settlement.open(raw, self._trust.scheme)
        self._trust.issued(envelope, self._wall_ms())
        if settlement.claim != claim.id or settlement.agreement != id:
            raise MessageError("settlement: it answers another claim")
        return settlement


def _longer(wait_ms: int) -> int:
    return min(RETRY_MAX_MS, max(RETRY_MIN_MS, 2 * wait_ms))
