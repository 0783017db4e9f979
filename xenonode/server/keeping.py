"""What was decided on sessions, written down before anybody can see it: first in the audit log, then in the journal.

Decides that what is decided again, since the disk took no writes, stands in the log once; and what an operator is told
of such a disk. A creation is excepted, since what is refused there is forgotten: `agreed` may stand in the log for a
session that never was, and twice for one that was agreed to anew. Leaves what is decided to `session_core`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from xenonode.server import session_events as ev
from xenonode.server.audit_log import AuditLog
from xenonode.server.errors import NotKeptError
from xenonode.server.journal import Journal
from xenonode.server.session_state import Session

logger = logging.getLogger("xenonode.server.sessions")


class Keeper:
    """Writes one server's sessions down. `now_ms` is what the log's entries are dated by."""

    def __init__(self, journal: Journal, audit: AuditLog, now_ms: Callable[[], int]) -> None:
        self._journal, self._audit, self._now_ms = journal, audit, now_ms
        self._audited: dict[bytes, list[ev.Audit]] = {}
        self._unkept: set[bytes] = set()
        self._told = False

    def keep(self, session: Session, effects: Sequence[ev.Effect]) -> None:
        """Write down what `effects` say of a session. Raises NotKeptError, and then it is to be decided anew."""
        if not any(isinstance(effect, ev.Audit | ev.Save) for effect in effects):
            return
        now_ms = self._now_ms()
        with self.watched(session.id):
            audited = self._audited.setdefault(session.id, [])
            for effect in effects:
                if isinstance(effect, ev.Audit) and effect not in audited:
                    self._audit.add(effect.kind, session.id, effect.body, now_ms)
                    audited.append(effect)  # where the journal is refused after it, the same is decided each second
            if any(isinstance(effect, ev.Save) for effect in effects):
                self._journal.put(session)
            del self._audited[session.id]

    @contextmanager
    def watched(self, id: bytes) -> Iterator[None]:
        """What is written of a session in here: an operator hears of it once, not each second, where it is refused."""
        try:
            yield
        except NotKeptError as error:
            if not self._told:
                told = "sessions cannot be written down (%s): make room; what guests use meanwhile is in memory only"
                logger.warning(told, error.message)
            self._told = True
            self._unkept.add(id)
            raise
        self._unkept.discard(id)
        if self._told and not self._unkept:
            self._told = False
            logger.warning("sessions are written down again")

    def forget(self, id: bytes) -> None:
        """There is no such session any more."""
        self._audited.pop(id, None)
        self._unkept.discard(id)
