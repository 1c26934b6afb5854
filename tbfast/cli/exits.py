"""Exit codes scripts rely on, and the errors that cause them."""

from typing import Final

from tbfast.errors import LocalError, NotFound, TbfastError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130  # as shells report SIGINT


class Unreachable(LocalError):
    """The data directory is in use, yet nobody answers on its socket."""


class UsageError(LocalError):
    """The command line asks for something that cannot be."""


def code_of(error: TbfastError) -> int:
    """Exit code for an error that ended a command."""
    # ConfigError by name: the configuration is not loaded for commands that do without it.
    if isinstance(error, UsageError) or type(error).__name__ == "ConfigError":
        return USAGE
    if isinstance(error, NotFound):
        return NOT_FOUND
    return UNREACHABLE if isinstance(error, Unreachable) else FAILED
