"""Packages for tests that have none."""

import asyncio
from pathlib import Path

from tbfast.store.packages import PackageFiles
from tbfast.worker.packages import PackageReader


def no_packages(loop: asyncio.AbstractEventLoop) -> PackageReader:
    """A reader that finds no file."""
    return PackageReader(loop, PackageFiles(Path("/nonexistent")))
