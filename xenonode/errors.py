"""What a person is told when something expected goes wrong: what happened, and what to do next.

Decides the shape of an error that may reach a person; each part decides its own words. The CLI prints the two
lines (or one JSON object) and ends with a non-zero status; it never prints a traceback for one of these.
"""

from __future__ import annotations


class XenoError(Exception):
    """An expected failure. `code` is stable and meant for programs, `next_step` for the person who reads it."""

    def __init__(self, message: str, next_step: str = "", code: str = "failed") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.code = code

    def to_fields(self) -> dict[str, str]:
        """As `--json` prints it on stderr, and as a control connection carries it."""
        return {"code": self.code, "message": self.message, "next_step": self.next_step}


class ConfigError(XenoError):
    """A setting is missing, unknown or out of bounds; the message names the setting and where it was read."""

    def __init__(self, message: str, next_step: str = "", code: str = "config") -> None:
        super().__init__(message, next_step, code)
