"""Entry point of ``tbfast``: finds the subcommand, loads its module, maps errors to exit codes.

A subcommand is a module with ``add_arguments(parser)`` and ``run(args) -> int``.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from tbfast import __version__
from tbfast.cli import exits
from tbfast.errors import TbfastError


class Command(NamedTuple):
    """One row of the table of subcommands."""

    name: str
    help: str
    module: str


COMMANDS: Final = (
    Command("serve", "run the server", "tbfast.cli.serve"),
    Command("demo", "run the server with a simulated fleet", "tbfast.cli.demo"),
    Command("device", "add, list, show, change and remove devices", "tbfast.cli.device"),
    Command("attr", "get, set and delete attributes of a device", "tbfast.cli.attr"),
    Command("rpc", "call methods of a device", "tbfast.cli.rpc"),
    Command("profile", "list, show, create and delete device profiles", "tbfast.cli.profile"),
    Command("user", "users of the management API, their passwords and API keys", "tbfast.cli.user"),
    Command("rates", "show and set rate limits", "tbfast.cli.rates"),
    Command("ota", "upload packages and give them to devices", "tbfast.cli.ota"),
    Command("query", "print stored telemetry of a device", "tbfast.cli.query"),
    Command("export", "write stored telemetry to a file", "tbfast.cli.export"),
    Command("series", "delete stored telemetry of a device", "tbfast.cli.series"),
    Command("backup", "copy a server's data, running or stopped", "tbfast.cli.backup"),
    Command("restore", "make a data directory of a backup", "tbfast.cli.restore"),
    Command("store", "seal stored rows, recover damaged stores", "tbfast.cli.store_cmd"),
    Command("doctor", "examine a data directory", "tbfast.cli.doctor"),
    Command("tail", "print telemetry as it arrives", "tbfast.cli.tail"),
    Command("bench", "measure a running server", "tbfast.cli.bench"),
    Command("config", "print settings and where they come from", "tbfast.cli.config_cmd"),
)

_EPILOG = (
    "exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 server not reachable; "
    "'tbfast COMMAND --help' explains a command"
)


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser, with arguments of the chosen subcommand only: the others are not imported."""
    parser = argparse.ArgumentParser(
        prog="tbfast",
        description="ThingsBoard-compatible edge server for device telemetry",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tbfast {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, allow_abbrev=False)
        if command.name == chosen:
            module = importlib.import_module(command.module)
            sub.description = module.__doc__
            sub.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _check_words(words)
        args = build_parser(words[0] if words else None).parse_args(words)
        code: int = args.run(args)
        sys.stdout.flush()
    except TbfastError as error:
        print(f"tbfast: {error}", file=sys.stderr)
        return exits.code_of(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, a pager) has what it wanted.
        _forget_output()
        return exits.DONE
    except OSError as error:
        if error.filename is not None:  # no output that could not be written
            raise
        _forget_output()
        print(f"tbfast: cannot write the output: {error.strerror}", file=sys.stderr)
        return exits.FAILED
    return code


def _forget_output() -> None:
    """Python would complain about the same pipe or file again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_words(words: Sequence[str]) -> None:
    """Names and keys are Unicode; bytes that are not would fail later and less clearly."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise exits.UsageError(f"{word!r} is not valid in this terminal's encoding") from error


if __name__ == "__main__":
    sys.exit(main())
