"""Where things are in a data directory."""

import fcntl
import os
from pathlib import Path

from tbfast.errors import LocalError, StoreBusy

UNIX_PATH_BYTES = 107  # sockaddr_un.sun_path without its NUL
NODE_JOURNAL = 65_535  # number of the journal that the controller writes


class Layout:
    """Paths below one data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.api = root / "tbfast.sock"  # REST for the command line, mode 0600
        self.front = root / "front.sock"  # admin REST behind a login, reached through the workers
        self.link = root / "link.sock"  # workers to controller, mode 0600
        self.registry = root / "registry"
        self.journals = root / "journal"
        self.series = root / "series"
        self.attributes = root / "attributes"
        self.packages = root / "packages"  # files of OTA packages, by id
        self.known = root / "known"  # names the stores: one that is missing is noticed
        self.reserve = root / "reserve"  # space that is given up on a full disk
        self.run = root / "run"  # follows the running server, rebuilt at start
        self.snapshot = self.run / "snapshot"  # hard links, while a backup copies them
        self.unfinished = root / "unfinished"  # why this directory cannot be used yet

    def journal(self, number: int) -> Path:
        """Directory of one worker's journal."""
        return self.journals / str(number)

    def journal_numbers(self) -> list[int]:
        """Journals that exist, ascending."""
        if not self.journals.is_dir():
            return []
        return sorted(int(p.name) for p in self.journals.iterdir() if p.name.isdigit())

    def holds_data(self) -> bool:
        """Whether the directory is one that a server or a restore has begun to fill."""
        stores = (self.registry, self.series, self.attributes, self.journals, self.known)
        return self.unfinished.exists() or any(path.is_dir() for path in stores)

    def foreign(self) -> Path | None:
        """A store that another user's server made; what we write there it could not open."""
        for path in (self.registry, self.series, self.attributes, self.journals):
            if path.is_dir() and path.stat().st_uid != os.geteuid():
                return path
        return None

    def prepare(self) -> None:
        """Creates the directory; LocalError if it cannot be used."""
        self.create()
        if self.unfinished.exists():
            raise LocalError(f"{self.root}: {self.unfinished.read_text(errors='replace').strip()}")

    def create(self) -> None:
        """The same for commands that put it in order, whatever state it is in."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.run.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocalError(
                f"cannot use the data directory {self.root}: {error.strerror}; "
                f"fix its owner and permissions or choose another with --data-dir"
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise LocalError(f"the data directory {self.root} is not writable for this user")
        for path in (self.api, self.front, self.link):
            if len(os.fsencode(path)) > UNIX_PATH_BYTES:
                raise LocalError(
                    f"the path {path} is longer than a Unix socket may have "
                    f"({UNIX_PATH_BYTES} bytes); use a shorter --data-dir"
                )

    def acquire(self) -> int:
        """Takes the directory's lock; StoreBusy if another process has it.  Returns its descriptor.

        The lock is held as long as any process that inherited the descriptor lives.
        """
        fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise StoreBusy(
                f"another tbfast uses the data directory {self.root}; stop it, or choose another "
                f"with --data-dir"
            ) from error
        return fd
