"""What a command works on: a running server, or the store of a stopped one."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from tbfast import config
from tbfast.cli.exits import Unreachable
from tbfast.errors import NotFound
from tbfast.model.ranges import RangeQuery

if TYPE_CHECKING:
    from tbfast.cli.client import Server


class DeviceView(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A device as the command line shows it; ``token`` only where it was asked for."""

    id: str
    name: str
    type: str
    label: str | None
    created_time: int
    token: str | None = None


class Target(Protocol):
    """Devices and stored telemetry. Raises NotFound, Conflict and the store's errors."""

    def create(
        self, name: str, token: str | None, label: str | None, type: str | None
    ) -> DeviceView:
        """Create a device; the answer has its token."""

    def find(self, text: str) -> DeviceView:
        """The device with this name or id."""

    def with_token(self, device: DeviceView) -> DeviceView:
        """The same with its token (None if it has other credentials)."""

    def devices(self, text_search: str) -> Iterator[DeviceView]:
        """Devices whose name or label contains a text, by name."""

    def remove(self, device: DeviceView) -> None:
        """Delete a device and its credentials."""

    def history(self, device: DeviceView, query: RangeQuery) -> bytes:
        """JSON text {"key":[{"ts":..,"value":..},..]}."""

    def close(self) -> None:
        """Let go of it."""


@contextlib.contextmanager
def running(directory: Path, why: str) -> Iterator["Server"]:
    """The running server of a data directory; Unreachable when there is none."""
    from tbfast.cli import client

    server = client.connect(directory)
    if server is None:
        raise Unreachable(f"no server runs on {directory}; start it with 'tbfast serve': {why}")
    with contextlib.closing(server):
        yield server


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Flags every command has that talks about one data directory."""
    setting = config.SETTINGS["data_dir"]
    parser.add_argument(
        "--data-dir",
        dest=setting.path,
        metavar="DIR",
        help=f"the server's data directory (default: {setting.default})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def data_dir(args: argparse.Namespace) -> Path:
    """The data directory by flag, environment, file or default."""
    return Path(config.load(args).config.data_dir)


@contextlib.contextmanager
def opened(directory: Path, *, create: bool = False) -> Iterator[Target]:
    """The running server of a data directory, else its store.

    Raises Unreachable when the store is in use and nobody answers, NotFound when there is no data
    directory (unless ``create``).
    """
    from tbfast.cli import client

    target: Target | None = client.connect(directory)
    if target is None:
        if not create and not directory.is_dir():
            raise NotFound(
                f"there is no data directory {directory}; name the server's with --data-dir"
            )
        from tbfast.cli import offline  # RocksDB takes a while to load

        target = offline.open_store(directory)
    with contextlib.closing(target):
        yield target
