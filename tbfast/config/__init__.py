"""The configuration tree and where each value came from.

Sources, weakest first: default, TOML file, ThingsBoard's own environment name, ``TBFAST_*``
environment, flag. An unknown key is an error that names the nearest known one. A setting that
ThingsBoard has keeps its path and unit; our own carry the unit in the name. The documented table
and ``tbfast config`` are generated from this package.
"""

from tbfast.config.loading import (
    API_KEY_ENV,
    CONFIG_ENV,
    PASSWORD_ENV,
    SETTINGS,
    Loaded,
    Setting,
    add_config_flags,
    load,
    value_of,
)
from tbfast.config.node import ActorsRpc, Admin, Series
from tbfast.config.tree import Config
from tbfast.errors import ConfigError

__all__ = [
    "API_KEY_ENV",
    "CONFIG_ENV",
    "PASSWORD_ENV",
    "SETTINGS",
    "ActorsRpc",
    "Admin",
    "Config",
    "ConfigError",
    "Loaded",
    "Series",
    "Setting",
    "add_config_flags",
    "load",
    "value_of",
]
