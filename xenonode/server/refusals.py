"""Refusals in the audit log: each with its reasons, until so many come that the log itself would be the damage.

Anybody may ask for a quote, and be refused, as often as he likes; every entry costs a write to disk and stays for ever.
Decides how many are written out a minute; the others are counted, and told with the first refusal after that minute.
"""

from __future__ import annotations

from xenonode.server.audit_log import AuditLog

WRITTEN_MAX = 60
"""A minute: at some 500 bytes each, 43 MB a day at the very worst. Honest clients are refused a few times an hour."""
PERIOD_MS = 60_000
NO_SESSION = b""


class Refusals:
    """Writes one kind of refusal into a server's audit log. Knows no clock."""

    def __init__(self, audit: AuditLog, kind: str) -> None:
        self._audit, self._kind = audit, kind
        self._began_ms = 0
        self._written = self._counted = 0

    def note(self, session: bytes, client: bytes, reasons: tuple[str, ...], now_ms: int) -> None:
        """One refusal: written, or only counted."""
        if abs(now_ms - self._began_ms) >= PERIOD_MS:
            if self._counted:
                self._audit.add(f"{self._kind}_more", NO_SESSION, {"count": self._counted}, now_ms)
            self._began_ms, self._written, self._counted = now_ms, 0, 0
        if self._written >= WRITTEN_MAX:
            self._counted += 1
            return
        self._audit.add(self._kind, session, {"client": client, "reasons": list(reasons)}, now_ms)
        self._written += 1
