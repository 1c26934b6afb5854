"""What a command works on: a running server, or the store of a stopped one."""

import argparse
import contextlib
import fcntl
import getpass
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tbfast import config
from tbfast.cli.devices import DeviceChanges, DeviceView
from tbfast.cli.exits import Unreachable, UsageError
from tbfast.model.ranges import RangeQuery

if TYPE_CHECKING:
    from tbfast.cli.client import Server

LOCK_NAME = "lock"  # held by whoever uses the data directory
START_S = 5.0  # a server that starts answers within this time


class ProfileView(msgspec.Struct, frozen=True, rename="camel"):
    """A device profile as the command line shows it."""

    id: str
    name: str
    transport_type: str
    provision_type: str
    default: bool
    created_time: int
    description: str | None
    provision_device_key: str | None
    profile_data: dict[str, Any]


class ProfileDraft(msgspec.Struct, frozen=True):
    """A profile to create."""

    name: str
    transport_type: str = "DEFAULT"
    description: str | None = None
    data: dict[str, Any] | None = None
    provision_key: str | None = None


class Target(Protocol):
    """Devices and stored telemetry. Raises NotFound, Conflict and the store's errors."""

    def create(self, changes: DeviceChanges) -> DeviceView:
        """Create a device, which has a name; the answer has its credentials."""

    def change(self, device: DeviceView, changes: DeviceChanges) -> DeviceView:
        """Change a device; the answer has its credentials."""

    def find(self, text: str) -> DeviceView:
        """The device with this name or id."""

    def with_credentials(self, device: DeviceView) -> DeviceView:
        """The same with what lets it in."""

    def devices(self, text_search: str) -> Iterator[DeviceView]:
        """Devices whose name or label contains a text, by name."""

    def remove(self, device: DeviceView) -> None:
        """Delete a device and its credentials."""

    def profiles(self) -> list[ProfileView]:
        """All device profiles, by name."""

    def create_profile(self, draft: ProfileDraft) -> ProfileView:
        """Create a device profile."""

    def remove_profile(self, profile: ProfileView) -> None:
        """Delete a device profile that is not the default and that no device has."""

    def history(self, device: DeviceView, query: RangeQuery) -> bytes:
        """JSON text {"key":[{"ts":..,"value":..},..]}."""

    def close(self) -> None:
        """Let go of it."""


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Flags every command has that talks about one data directory."""
    setting = config.SETTINGS["data_dir"]
    parser.add_argument(
        "--data-dir",
        dest=setting.path,
        metavar="DIR",
        help=f"the server's data directory (default: {setting.default})",
    )
    parser.add_argument(
        "--url", help="a server elsewhere, http://host:8080, instead of the data directory"
    )
    parser.add_argument("--user", metavar="EMAIL", help="log in there as this user")
    parser.add_argument(
        "--password", help=f"its password (environment: {config.PASSWORD_ENV}; else asked for)"
    )
    parser.add_argument(
        "--api-key", metavar="KEY", help=f"instead of a login (environment: {config.API_KEY_ENV})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def data_dir(args: argparse.Namespace) -> Path:
    """The data directory by flag, environment, file or default."""
    return Path(config.load(args).config.data_dir)


@contextlib.contextmanager
def opened(args: argparse.Namespace, *, create: bool = False) -> Iterator[Target]:
    """The server the flags name; without one the store of the data directory.

    Raises Unreachable when the store is in use and nobody answers, NotFound when there is no data
    directory (unless ``create``).
    """
    target: Target | None = _server(args)
    if target is None:
        from tbfast.cli import offline  # RocksDB takes a while to load

        target = offline.open_store(data_dir(args), create=create)
    with contextlib.closing(target):
        yield target


@contextlib.contextmanager
def running(args: argparse.Namespace) -> "Iterator[Server]":
    """The running server the flags name; Unreachable when there is none."""
    server = _server(args)
    if server is None:
        directory = data_dir(args)
        raise Unreachable(
            f"no server runs on {directory}; start one with: tbfast serve --data-dir {directory}"
        )
    with contextlib.closing(server):
        yield server


def _patiently_connected(directory: Path) -> "Server | None":
    """The server of a data directory; one that is starting gets a moment to answer."""
    from tbfast.cli import client

    deadline = time.monotonic() + START_S
    server = client.connect(directory)
    while server is None and _in_use(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
        server = client.connect(directory)
    return server


def _in_use(directory: Path) -> bool:
    """Whether a process holds the directory's lock."""
    try:
        with open(directory / LOCK_NAME, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _server(args: argparse.Namespace) -> "Server | None":
    from tbfast.cli import client

    if args.url is None:
        if args.user or args.password or args.api_key:
            raise UsageError("a login is for a server named with --url")
        return _patiently_connected(data_dir(args))
    server = client.connect_url(args.url)
    try:
        api_key = args.api_key or os.environ.get(config.API_KEY_ENV)
        if args.user:
            server.login(args.user, args.password or _asked(args.user))
        elif api_key:
            server.use_key(api_key)
        else:
            raise UsageError("--url needs --user or --api-key")
    except BaseException:
        server.close()
        raise
    return server


def _asked(email: str) -> str:
    """The password from the environment, else from the terminal."""
    known = os.environ.get(config.PASSWORD_ENV)
    if known:
        return known
    if not sys.stdin.isatty():
        raise UsageError(f"nobody to ask for the password: set {config.PASSWORD_ENV}")
    return getpass.getpass(f"Password of {email}: ")
