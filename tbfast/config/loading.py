"""The values of the tree and where each came from: file, environment, flags."""

import argparse
import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from tbfast import limits
from tbfast.config.tree import Config
from tbfast.errors import ConfigError

ENV_PREFIX: Final = "TBFAST_"
CONFIG_ENV: Final = "TBFAST_CONFIG"
PASSWORD_ENV: Final = "TBFAST_PASSWORD"
API_KEY_ENV: Final = "TBFAST_API_KEY"
# Read by the command line, by the build and by the test suite; never settings.
_NOT_SETTINGS: Final = {
    CONFIG_ENV,
    PASSWORD_ENV,
    API_KEY_ENV,
    "TBFAST_SANITIZE",
    "TBFAST_EXT",
    "TBFAST_WERROR",
}
_TEST_PREFIX: Final = "TBFAST_TEST_"


class Setting(msgspec.Struct, frozen=True):
    """One leaf of the tree, as documented."""

    path: str
    type: Any
    default: Any
    description: str
    env: str
    alias: str | None
    flag: str | None
    follows: str | None
    secret: bool


class Loaded(msgspec.Struct, frozen=True):
    """The configuration and, per path, a few words on where its value came from."""

    config: Config
    origins: dict[str, str]


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _leaves(struct: type[msgspec.Struct], prefix: str) -> list[Setting]:
    hints = get_type_hints(struct, include_extras=True)
    found: list[Setting] = []
    for field in msgspec.structs.fields(struct):
        path = prefix + field.name
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            found += _leaves(hint, path + ".")
            continue
        metas = [meta for meta in get_args(hint)[1:] if isinstance(meta, Meta)]
        extra: dict[str, str] = {}
        for meta in metas:
            extra |= meta.extra or {}
        found.append(
            Setting(
                path=path,
                type=hint,
                default=_default(field),
                description=next(meta.description for meta in metas if meta.description),
                env=ENV_PREFIX + path.upper().replace(".", "__"),
                alias=extra.get("alias"),
                flag=extra.get("flag"),
                follows=extra.get("follows"),
                secret="secret" in extra,
            )
        )
    return found


SETTINGS: Final[dict[str, Setting]] = {s.path: s for s in _leaves(Config, "")}


def value_of(config: Config, path: str) -> Any:
    """The value at a dotted path of the tree."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and a flag for every setting that has one; all default to "not given"."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file with settings (environment: {CONFIG_ENV})"
    )
    for setting in SETTINGS.values():
        if setting.flag is None:
            continue
        if isinstance(setting.default, bool):
            parser.add_argument(
                setting.flag,
                dest=setting.path,
                action="store_true",
                default=None,
                help=setting.description,
            )
            continue
        parser.add_argument(
            setting.flag,
            dest=setting.path,
            metavar=_metavar(setting.type),
            help=f"{setting.description} (default: {setting.default})",
        )


def load(
    args: argparse.Namespace | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Merge all sources; raises ConfigError for an unknown key or an unusable value.

    ``args`` comes from a parser prepared by `add_config_flags`; missing attributes count as
    "not given". ``environ`` is the process environment unless given.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, "default")

    file = getattr(args, "config", None) or env.get(CONFIG_ENV)
    if file:
        for path, value in _read_file(Path(file)).items():
            values[path] = _converted(SETTINGS[path], value, f"{path} in {file}", strict=True)
            origins[path] = f"file {file}"
    for name, setting in _environment(env):
        values[setting.path] = _converted(setting, env[name], name, strict=False)
        origins[setting.path] = f"environment {name}"
    for setting in SETTINGS.values():
        given = getattr(args, setting.path, None)
        if setting.flag is not None and given is not None:
            values[setting.path] = _converted(setting, given, setting.flag, strict=False)
            origins[setting.path] = f"flag {setting.flag}"
    for setting in SETTINGS.values():
        if setting.follows in values and setting.path not in values:
            values[setting.path] = values[setting.follows]
            origins[setting.path] = f"{setting.follows}, {origins[setting.follows]}"
    config = msgspec.convert(_nested(values), Config)
    if len(config.series.retention_classes()) > limits.RETENTION_CLASSES:
        raise ConfigError(
            f"series.retention and series.retention_ms name more than {limits.RETENTION_CLASSES} "
            f"different times ({origins['series.retention']}); let some profiles share one"
        )
    config.admin.allowed_networks()  # a mistake in it is told at the start
    return Loaded(config, origins)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return _flat(tree, "", str(path))


def _flat(tree: dict[str, Any], prefix: str, source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = prefix + name
        if path in SETTINGS:
            found[path] = value
        elif isinstance(value, dict) and any(p.startswith(path + ".") for p in SETTINGS):
            found |= _flat(value, path + ".", source)
        else:
            raise _unknown(path, SETTINGS, source)
    return found


def _environment(env: Mapping[str, str]) -> list[tuple[str, Setting]]:
    """Variables that name a setting, ThingsBoard's names first so that ours overwrite them."""
    ours = {s.env: s for s in SETTINGS.values()}
    theirs = {s.alias: s for s in SETTINGS.values() if s.alias}
    for name in env:
        if not name.startswith(ENV_PREFIX) or name.startswith(_TEST_PREFIX):
            continue
        if name not in ours and name not in _NOT_SETTINGS:
            raise _unknown(name, ours, "the environment")
    return [
        (name, setting)
        for table in (theirs, ours)
        for name, setting in table.items()
        if name in env
    ]


def _unknown(name: str, known: Mapping[str, Setting], source: str) -> ConfigError:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return ConfigError(f"unknown setting {name} in {source}; did you mean {nearest}?")


def _converted(setting: Setting, value: Any, source: str, *, strict: bool) -> Any:
    try:
        if isinstance(setting.default, dict) and isinstance(value, str):
            return msgspec.json.decode(value, type=setting.type)
        return msgspec.convert(value, setting.type, strict=strict)
    except msgspec.DecodeError as error:  # also what a ValidationError is
        shown = "" if setting.secret else f" = {value!r}"
        raise ConfigError(f"{source}{shown}: {error} ({setting.description})") from error


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _metavar(hint: Any) -> str:
    bare = hint
    while get_origin(bare) is Annotated:
        bare = get_args(bare)[0]
    if get_origin(bare) is Literal:
        return "|".join(get_args(bare))
    return "N" if bare is int else "TEXT"
