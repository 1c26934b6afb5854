"""The result of a load test in words and columns."""

from tbfast.loadgen.plan import Plan
from tbfast.loadgen.result import Latency, Result


def title(plan: Plan) -> str:
    """What was run, in one line."""
    version = "MQTT 5" if plan.version == 5 else "MQTT 3.1.1"
    if plan.idle:
        return f"{plan.connections} idle connections, {version}"
    pace = (
        f"{plan.depth} in flight each"
        if plan.rate is None
        else f"{plan.rate:g} messages/s over all of them"
    )
    return f"{plan.connections} connections, {pace}, QoS {plan.qos}, {version}"


def rows(plan: Plan, result: Result) -> list[tuple[str, str]]:
    """Name and value of everything worth a line."""
    found = [
        ("connected", f"{result.connect_rate:,.0f}/s, CONNACK {_latency(result.connect)}"),
    ]
    if not plan.idle:
        found.append(("messages", f"{result.messages:,} in {result.seconds:.2f} s"))
        found.append(("rate", f"{result.rate:,.0f} messages/s"))
    if result.latency:
        found.append(("acknowledged", f"after {_latency(result.latency)}"))
    if result.lag:
        found.append(("sent late by", _latency(result.lag)))
    server = result.server
    if server:
        cost = server.cpu_us_per_message
        found.append(
            (
                "server CPU",
                (f"{cost:.2f} us/message, " if cost is not None else "")
                + f"{server.cpu_cores:.2f} cores",
            )
        )
        memory = f"{_mib(server.pss)} Pss, {_mib(server.rss)} RSS"
        if plan.idle:
            memory += f", {server.rss_per_connection / 1024:.2f} KiB RSS per connection"
        found.append(("server memory", memory))
    found.append(("generator CPU", f"{result.generator_cores:.2f} cores"))
    found.extend((name, f"{count:,}") for name, count in troubles(plan, result).items())
    if result.disconnect_code is not None:
        found.append(("last DISCONNECT", f"reason 0x{result.disconnect_code:02X}"))
    return found


def troubles(plan: Plan, result: Result) -> dict[str, int]:
    """What went wrong and how often; connections lost are expected with ``reconnect``."""
    counts = {
        "messages refused": result.refused,
        "answers to nothing": result.stray,
        "messages never sent": result.unsent,
        "messages never acknowledged": result.unacknowledged,
        "connections lost": 0 if plan.reconnect else result.lost,
        "answers not understood": result.broken,
    }
    return {name: count for name, count in counts.items() if count}


def _latency(latency: Latency) -> str:
    return (
        f"p50 {_ms(latency.p50)}, p90 {_ms(latency.p90)}, p99 {_ms(latency.p99)}, "
        f"p99.9 {_ms(latency.p999)}, max {_ms(latency.max)} ms"
    )


def _ms(us: float) -> str:
    return f"{us / 1000:.3g}" if us < 1e6 else f"{us / 1000:.0f}"


def _mib(size: int) -> str:
    return f"{size / 1048576:.1f} MiB"
