"""Writes to a registry as fast as it can and prints a line for each answered write.

Arguments: directory, seed. Lines: "+ id name token number", "- id", "* id token".
"""

import asyncio
import random
import sys
from pathlib import Path

from tbfast.control.registry import Registry


async def main(path: Path, seed: int) -> None:
    registry = await Registry.open(path)
    print("open", flush=True)
    await asyncio.gather(*(writer(registry, random.Random(seed * 100 + i), i) for i in range(8)))


async def writer(registry: Registry, choose: random.Random, index: int) -> None:
    mine: list[str] = []
    for count in range(1_000_000):
        action = choose.random()
        if action < 0.6 or not mine:
            name = f"d{index}-{count}"
            made = await registry.create_device(name, f"t{index}-{count}")
            device, token = made.device, made.credentials.credentials_id
            mine.append(device.id)
            print("+", device.id, name, token, device.number, flush=True)
        elif action < 0.8:
            id = mine.pop(choose.randrange(len(mine)))
            print("-?", id, flush=True)
            await registry.delete_device(id)
            print("-", id, flush=True)
        else:
            id = choose.choice(mine)
            print("*?", id, flush=True)
            await registry.update_credentials(id, f"n{index}-{count}")
            print("*", id, f"n{index}-{count}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
