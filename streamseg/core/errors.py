"""The one root of errors, split by whose fault it is."""

from __future__ import annotations


class StreamsegError(Exception):
    """Root of all errors that streamseg raises on purpose. Its text says what, where and how to mend it."""

    exit_code = 70


class InputError(StreamsegError):
    """The input or the set-up is wrong: whoever wrote it can mend it. Exit code 1."""

    exit_code = 1


class TryAgainError(StreamsegError):
    """Something outside is away for now; the same call may go through later. Exit code 75."""

    exit_code = 75


class RejectedEvent(InputError):  # noqa: N818 - an event that was rejected: the word of the dead letters
    """An event that is not one. It goes to the dead letters and never stops the worker.

    `reason` is one of a fixed set (a metric's label); `detail` is for people, at most 200 characters.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:200]


class ExpressionError(InputError):
    """An expression is wrong at a place in its text."""

    def __init__(self, message: str, start: int, end: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end
        self.hint = hint
