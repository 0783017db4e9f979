"""The three messages: welcome, request, reply. Pure: typed values to and from the fields of a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xenonode.control.errors import ControlError, FrameError

VERSION = 1  # of the conversation; a welcome of another version is refused by name
MAX_METHOD_CHARACTERS = 100
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for a method; `id` is the connection's own count."""

    id: int
    method: str
    body: dict[str, Any]

    def to_fields(self) -> dict[str, Any]:
        """Return what the frame carries."""
        return {"id": self.id, "method": self.method, "body": self.body}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Request:
        """Check a frame's fields; FrameError if they are no request."""
        if fields.keys() != {"id", "method", "body"}:
            raise FrameError(f"a request has id, method and body, not {sorted(fields)[:5]}")
        if not isinstance(fields["method"], str) or not 0 < len(fields["method"]) <= MAX_METHOD_CHARACTERS:
            raise FrameError("a request's method is a short text")
        if not isinstance(fields["body"], dict):
            raise FrameError("a request's body is a map")
        return cls(_number(fields["id"]), fields["method"], fields["body"])


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request: a body, or an error."""

    id: int
    body: dict[str, Any] | None
    error: ControlError | None

    def to_fields(self) -> dict[str, Any]:
        """Return what the frame carries."""
        if self.error is not None:
            return {"id": self.id, "error": error_fields(self.error)}
        return {"id": self.id, "ok": self.body}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Reply:
        """Check a frame's fields; FrameError if they are no reply."""
        if fields.keys() == {"id", "ok"} and isinstance(fields["ok"], dict):
            return cls(_number(fields["id"]), fields["ok"], None)
        if fields.keys() == {"id", "error"}:
            return cls(_number(fields["id"]), None, error_from_fields(fields["error"]))
        raise FrameError(f"a reply has id and ok or error, not {sorted(fields)[:5]}")


def welcome_fields(error: ControlError | None = None) -> dict[str, Any]:
    """Return the server's first message: come in, or why not."""
    return {"welcome": VERSION} if error is None else {"error": error_fields(error)}


def check_welcome(fields: dict[str, Any]) -> None:
    """Raise the server's refusal, if it is one; FrameError if it is neither."""
    if fields.keys() == {"error"}:
        raise error_from_fields(fields["error"])
    if fields != {"welcome": VERSION}:
        raise FrameError(f"the peer speaks another version than {VERSION}: {str(fields)[:100]}")


def error_fields(error: ControlError) -> dict[str, Any]:
    """Return an error as it travels."""
    return {"code": error.code, "message": error.message, "next_step": error.next_step}


def error_from_fields(fields: Any) -> ControlError:
    """Return the error that travelled; FrameError if it is none."""
    if not isinstance(fields, dict) or fields.keys() != {"code", "message", "next_step"}:
        raise FrameError("an error has code, message and next_step")
    if not all(isinstance(text, str) for text in fields.values()):
        raise FrameError("an error's code, message and next_step are texts")
    return ControlError(fields["code"], fields["message"], fields["next_step"])


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_ID:
        raise FrameError("an id is a whole number from 0")
    return value
