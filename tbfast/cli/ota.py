"""Upload packages, give them to devices or profiles, and see how far the updates are.

PACKAGE is an id, a title, or TITLE@VERSION where several packages have the title.
"""

import argparse
import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from tbfast.cli import exits, output, target
from tbfast.cli.client import Server
from tbfast.cli.exits import UsageError
from tbfast.errors import NotFound, TbfastError
from tbfast.model.package import ChecksumAlgorithm, PackageType

_READ_BYTES: Final = 262_144
_PAGE_SIZE: Final = 1_000
_MEMBERS: Final[dict[PackageType, str]] = {"FIRMWARE": "firmwareId", "SOFTWARE": "softwareId"}


class _Id(msgspec.Struct):
    id: str


class _Package(msgspec.Struct, rename="camel"):
    id: _Id
    type: PackageType
    title: str
    version: str
    device_profile_id: _Id
    url: str | None
    has_data: bool
    data_size: int | None
    checksum_algorithm: str | None
    checksum: str | None
    created_time: int


class _Packages(msgspec.Struct, rename="camel"):
    data: list[_Package]
    has_next: bool


class _Shown(msgspec.Struct, rename="camel", omit_defaults=True):
    id: str
    type: str
    title: str
    version: str
    created_time: int
    size: int | None = None
    url: str | None = None
    checksum_algorithm: str | None = None
    checksum: str | None = None


class _Device(msgspec.Struct, rename="camel"):
    id: _Id
    name: str
    state: Any
    error: Any
    current_title: Any
    current_version: Any


class _Devices(msgspec.Struct, rename="camel"):
    data: list[_Device]
    has_next: bool


class _Progress(msgspec.Struct, rename="camel"):
    id: str
    name: str
    state: Any
    error: Any
    current_title: Any
    current_version: Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    upload = actions.add_parser("upload", help="upload a package and print its id")
    upload.add_argument("file", metavar="FILE", nargs="?", help="its bytes, or --package-url")
    upload.add_argument("--title", required=True)
    upload.add_argument("--version", required=True)
    upload.add_argument("--tag")
    upload.add_argument("--software", action="store_true", help="software (default: firmware)")
    upload.add_argument(
        "--profile", default="default", metavar="PROFILE", help="whose devices it is for, by name"
    )
    upload.add_argument(
        "--package-url", metavar="URL", help="where devices get it, instead of from this server"
    )
    upload.add_argument("--checksum", metavar="HEX", help="refuse a file that has another one")
    upload.add_argument(
        "--algorithm", default="SHA256", choices=get_args(ChecksumAlgorithm), metavar="NAME",
        help=f"of the checksum: {', '.join(get_args(ChecksumAlgorithm))} (default: SHA256)",
    )  # fmt: skip
    upload.set_defaults(action=_upload)

    listing = actions.add_parser("list", help="print all packages")
    listing.set_defaults(action=_list)

    assign = actions.add_parser("assign", help="give a package to devices or to a profile")
    assign.set_defaults(action=_assign)
    unassign = actions.add_parser("unassign", help="take the package of devices or of a profile")
    unassign.add_argument("--software", action="store_true", help="software (default: firmware)")
    unassign.set_defaults(action=_unassign)
    for one in (assign, unassign):
        one.add_argument(
            "--device", metavar="DEVICE", action="append", default=[],
            help="name or id; may be repeated",
        )  # fmt: skip
        one.add_argument("--profile", metavar="PROFILE", help="all devices without their own")

    status = actions.add_parser("status", help="print the state of each device's update")
    status.set_defaults(action=_status)
    delete = actions.add_parser("delete", help="delete a package that nothing refers to")
    delete.set_defaults(action=_delete)
    for one in (assign, status, delete):
        one.add_argument("package", metavar="PACKAGE", help="id, title or title@version")
    for action_parser in actions.choices.values():
        target.add_target_flags(action_parser)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action on the running server."""
    if args.action in (_assign, _unassign) and bool(args.device) == bool(args.profile):
        raise UsageError("name either --device or --profile")
    with target.running(args) as server:
        args.action(server, args)
    return exits.DONE


def _upload(server: Server, args: argparse.Namespace) -> None:
    if (args.file is None) == (args.package_url is None):
        raise UsageError("name either a FILE or --package-url")
    body = {
        "type": "SOFTWARE" if args.software else "FIRMWARE",
        "title": args.title,
        "version": args.version,
        "tag": args.tag,
        "url": args.package_url,
        "deviceProfileId": {"id": _profile_id(server, args.profile)},
    }
    if args.package_url is not None:
        if args.checksum:
            body |= {"checksum": args.checksum, "checksumAlgorithm": args.algorithm}
        _print(args, server.call("POST", "/api/otaPackage", _Package, (), body))
        return
    try:
        size = Path(args.file).stat().st_size
        file = open(args.file, "rb")  # noqa: SIM115  # before anything is made on the server
    except OSError as error:
        raise UsageError(f"cannot read {args.file}: {error.strerror}") from error
    with file:
        made = server.call("POST", "/api/otaPackage", _Package, (), body)
        query = {"checksum": args.checksum or "", "checksumAlgorithm": args.algorithm}
        path = f"/api/otaPackage/{made.id.id}"
        boundary = secrets.token_hex(16)
        head, tail = _around(boundary, Path(args.file).name)
        try:
            with _bar(size) as moved:
                text = server.upload(
                    path,
                    query,
                    _parts(head, iter(lambda: file.read(_READ_BYTES), b""), tail, moved),
                    len(head) + size + len(tail),
                    f"multipart/form-data; boundary={boundary}",
                )
        except TbfastError:
            with contextlib.suppress(TbfastError):  # the error that matters is the first
                server.request("DELETE", path)
            raise
    _print(args, msgspec.json.decode(text, type=_Package))


def _around(boundary: str, name: str) -> tuple[bytes, bytes]:
    """What stands before and after the bytes of the file in a form of one part."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(errors="replace"), f"\r\n--{boundary}--\r\n".encode()


def _parts(
    head: bytes, data: Iterator[bytes], tail: bytes, moved: Callable[[int], None]
) -> Iterator[bytes]:
    yield head
    for part in data:
        yield part
        moved(len(part))
    yield tail


@contextlib.contextmanager
def _bar(size: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else nothing; told of every piece that has left."""
    if not sys.stderr.isatty():
        yield lambda nbytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=size)
        yield lambda nbytes: bar.advance(shown, nbytes)


def _list(server: Server, args: argparse.Namespace) -> None:
    found = [_shown(p) for p in _packages(server)]
    if args.json:
        output.json_line(found)
        return
    output.table(
        ("title", "version", "type", "id", "bytes or URL", "created (UTC)"),
        (
            (
                p.title, p.version, p.type.lower(), p.id,
                p.url or ("no data" if p.size is None else str(p.size)),
                output.time_text(p.created_time),
            )
            for p in found
        ),
    )  # fmt: skip


def _assign(server: Server, args: argparse.Namespace) -> None:
    package = _found(server, args.package)
    _give(server, args, _MEMBERS[package.type], package.id.id)
    _print(args, package)


def _unassign(server: Server, args: argparse.Namespace) -> None:
    _give(server, args, _MEMBERS["SOFTWARE" if args.software else "FIRMWARE"], None)
    if args.json:
        output.json_line({})


def _give(server: Server, args: argparse.Namespace, member: str, package: str | None) -> None:
    """Reads, changes and writes back; Conflict if somebody else was faster."""
    value = package and {"entityType": "OTA_PACKAGE", "id": package}
    if args.profile is not None:
        paths = [("/api/deviceProfile", _profile_id(server, args.profile))]
    else:
        paths = [("/api/device", server.find(device).id) for device in args.device]
    for path, id in paths:
        found = server.get(f"{path}/{id}", dict[str, Any])
        server.request("POST", path, (), {**found, member: value})


def _status(server: Server, args: argparse.Namespace) -> None:
    package = _found(server, args.package)
    devices: list[_Progress] = []
    has_next, page = True, 0
    while has_next:
        path = f"/api/otaPackage/{package.id.id}/devices?pageSize={_PAGE_SIZE}&page={page}"
        found = server.get(path, _Devices)
        devices += (_Progress(**{**msgspec.structs.asdict(d), "id": d.id.id}) for d in found.data)
        has_next, page = found.has_next, page + 1
    if args.json:
        output.json_line(devices)
        return
    output.table(
        ("device", "state", "running", "error"),
        (
            (
                d.name, str(d.state or ""),
                f"{d.current_title or ''} {d.current_version or ''}".strip(), str(d.error or ""),
            )
            for d in devices
        ),
    )  # fmt: skip


def _delete(server: Server, args: argparse.Namespace) -> None:
    package = _found(server, args.package)
    server.request("DELETE", f"/api/otaPackage/{package.id.id}")
    if args.json:
        output.json_line(_shown(package))
    else:
        output.line(f"deleted {output.printable(f'{package.title} {package.version}')}")


def _packages(server: Server) -> Iterator[_Package]:
    has_next, page = True, 0
    while has_next:
        query = f"pageSize={_PAGE_SIZE}&page={page}&sortProperty=title"
        found = server.get(f"/api/otaPackages?{query}", _Packages)
        yield from found.data
        has_next, page = found.has_next, page + 1


def _found(server: Server, text: str) -> _Package:
    found = [p for p in _packages(server) if text in (p.id.id, p.title, f"{p.title}@{p.version}")]
    if not found:
        raise NotFound(f"there is no package {text!r}")
    if len(found) > 1:
        names = ", ".join(f"{p.title}@{p.version} ({p.type.lower()}, {p.id.id})" for p in found)
        raise UsageError(f"{text!r} may be any of {names}")
    return found[0]


def _profile_id(server: Server, name: str) -> str:
    for profile in server.profiles():
        if name in (profile.name, profile.id):
            return profile.id
    raise NotFound(f"there is no device profile with the name or id {name!r}")


def _shown(package: _Package) -> _Shown:
    return _Shown(
        package.id.id, package.type, package.title, package.version, package.created_time,
        package.data_size, package.url, package.checksum_algorithm, package.checksum,
    )  # fmt: skip


def _print(args: argparse.Namespace, package: _Package) -> None:
    if args.json:
        output.json_line(_shown(package))
    else:
        output.line(package.id.id)
