"""A registry of its own for one piece of asynchronous work."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tbfast.control.registry import Registry

T = TypeVar("T")


def with_registry(path: Path, work: Callable[[Registry], Awaitable[T]]) -> T:
    """Open the registry below ``path``, do the work, close it."""

    async def run() -> T:
        registry = await Registry.open(path / "registry")
        try:
            return await work(registry)
        finally:
            await registry.close()

    return asyncio.run(run())
