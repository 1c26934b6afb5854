"""Devices created through REST: time, memory of the controller, start-up time, pages.

    python benches/registry.py [DEVICES] [CONNECTIONS]

A real node of its own, deleted at the end; prints one JSON object.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from tests.support.server import Server

TYPES = ("SMART_METER", "SMART_TRACKER", "INDUSTRIAL_PLC")


async def create(path: Path, names: list[str]) -> None:
    """ThingsBoard's load generator: look for the name, then create it with itself as the token."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    for index, name in enumerate(names):
        found = await ask(reader, writer, "GET", f"/api/tenant/devices?deviceName={name}")
        assert found == 404, found
        body = json.dumps({"name": name, "type": TYPES[index % 3]}).encode()
        made = await ask(reader, writer, "POST", f"/api/device?accessToken={name}", body)
        assert made == 200, made
    writer.close()
    await writer.wait_closed()


async def ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    body: bytes = b"",
) -> int:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    for line in answer.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return int(answer.split(b" ", 2)[1])


def memory_mib(pid: int) -> float:
    """Private and shared memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def cpu_s(pid: int) -> float:
    """Processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 3)


def run(devices: int, connections: int) -> dict[str, object]:
    result: dict[str, object] = {"devices": devices, "connections": connections}
    with Server() as server:
        result["empty_mib"] = memory_mib(server.pids()["controller"])
        shares = [[f"DW{n:08}" for n in range(first, devices, connections)]
                  for first in range(connections)]  # fmt: skip
        socket = server.data_dir / "tbfast.sock"

        async def all_at_once() -> None:
            await asyncio.gather(*(create(socket, share) for share in shares))

        used = cpu_s(server.pids()["controller"])
        taken = seconds(lambda: asyncio.run(all_at_once()))
        result |= {"create_s": taken, "creates_per_s": round(devices / taken)}
        used = cpu_s(server.pids()["controller"]) - used
        result["controller_cpu_us_each"] = round(used / devices * 1e6)
        result["full_mib"] = memory_mib(server.pids()["controller"])
        lists = {
            "page_by_id_s": "/api/tenant/devices?pageSize=100&page=0",
            "page_by_name_s": "/api/tenant/devices?pageSize=100&page=0&sortProperty=name",
            "infos_active_s": "/api/tenant/deviceInfos?pageSize=100&page=0&active=true",
            "all_s": "/api/tenant/devices?pageSize=2147483647&page=0",
        }
        for name, path in lists.items():
            result[name] = seconds(lambda path=path: server.rest("GET", path))
        query = {
            "entityFilter": {"type": "entityType", "entityType": "DEVICE"},
            "keyFilters": [],
            "pageLink": {"pageSize": 10, "page": 0},
        }
        result["query_s"] = seconds(lambda: server.rest("POST", "/api/entitiesQuery/find", query))
        assert server.stop() == 0
        result["start_s"] = seconds(server.start)
        result["restarted_mib"] = memory_mib(server.pids()["controller"])
    return result


def main(words: list[str]) -> None:
    devices = int(words[0]) if words else 20_000
    print(json.dumps(run(devices, int(words[1]) if len(words) > 1 else 4)))


if __name__ == "__main__":
    main(sys.argv[1:])
