"""The one error type that users see.

Everything that can go wrong for a reason outside hal's own code (input, network, disk, a tool that
failed) is raised as `HalError` and caught once, in `hal.cli.main`. Any other exception is a bug in hal
and keeps its traceback.
"""

from __future__ import annotations

EXIT_FAILED = 1
"""The work was understood and could not be done."""

EXIT_USAGE = 2
"""The request itself is wrong: options or a spec."""


class HalError(Exception):
    """A failure explained to the user in one or two lines.

    `message` says what is wrong and where; `hint` says how to mend it; `details` are further lines
    worth showing (each problem of a spec, the end of a tool's output).
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str | None = None, *, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return "\n".join([self.message, *self.details, *([self.hint] if self.hint else [])])


class UsageError(HalError):
    """The request is wrong (a bad spec, a missing profile): exit code 2."""

    exit_code = EXIT_USAGE
