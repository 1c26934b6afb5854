"""Print every setting, its value and where the value comes from; or the table of limits."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from tbfast import config
from tbfast.cli import exits, limits_table, output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The server's own flags, so that what they would do can be seen, and the form of output."""
    config.add_config_flags(parser)
    parser.add_argument("--limits", action="store_true", help="bounds instead of settings")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print the documentation's table")


def run(args: argparse.Namespace) -> int:
    """Load what a server would load, and print it."""
    if args.limits:
        _limits(args)
        return exits.DONE
    loaded = config.load(args)
    values = {path: _shown(setting, loaded) for path, setting in config.SETTINGS.items()}
    if args.json:
        output.json_line(
            {
                path: {"value": value, "origin": loaded.origins[path]}
                for path, value in values.items()
            }
        )
    elif args.markdown:
        _markdown(
            ("Setting", "Flag", "Environment", "Default", "Meaning"),
            (_documented(setting) for setting in config.SETTINGS.values()),
        )
    else:
        output.table(
            ("setting", "value", "origin"),
            ((path, _text(value), loaded.origins[path]) for path, value in values.items()),
        )
    return exits.DONE


def _shown(setting: config.Setting, loaded: config.Loaded) -> Any:
    value = config.value_of(loaded.config, setting.path)
    return "(hidden)" if setting.secret and value else value


def _documented(setting: config.Setting) -> tuple[str, ...]:
    names = [f"`{name}`" for name in (setting.env, setting.alias) if name]
    return (
        f"`{setting.path}`",
        f"`{setting.flag}`" if setting.flag else "",
        " ".join(names),
        f"`{_text(setting.default)}`",
        setting.description,
    )


def _limits(args: argparse.Namespace) -> None:
    found = limits_table.rows()
    if args.json:
        output.json_line(found)
        return
    rows = ((r.group, r.name, str(r.value), r.unit, r.reason) for r in found)
    columns = ("Where", "Limit", "Value", "Unit", "Reason")
    if args.markdown:
        _markdown(columns, rows)
    else:
        output.table(columns, rows)


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    output.line("| " + " | ".join(columns) + " |")
    output.line("|" + "---|" * len(columns))
    for row in rows:
        output.line("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
