"""Rounds become a table: medians, and ratios to the baseline of the same round."""

from collections.abc import Callable
from statistics import median
from typing import Any

from benches.fleet.scenarios import BASELINE, IDLE, SCENARIOS, Scenario
from tbfast.loadgen.result import Result

# Scenario, then server, then one result per round.
Rounds = dict[str, dict[str, list[Result]]]


def cpu_us(result: Result) -> float:
    """Whole-server CPU per message."""
    assert result.server is not None
    assert result.server.cpu_us_per_message is not None
    return result.server.cpu_us_per_message


def markdown(rounds: Rounds) -> str:
    """All tables."""
    parts = [_load_table(scenario, rounds[scenario.key])
             for scenario in SCENARIOS if scenario.key in rounds]  # fmt: skip
    if IDLE.key in rounds:
        parts.append(_idle_table(rounds[IDLE.key]))
    return "\n\n".join(parts)


def _load_table(scenario: Scenario, servers: dict[str, list[Result]]) -> str:
    lines = [
        f"**{scenario.title}**",
        "",
        "| server | CPU µs/message (min–max) | ratio | messages/s | p50 ms | p99 ms | p99.9 ms "
        "| max ms | Pss MiB | errors |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, results in servers.items():
        costs = [cpu_us(result) for result in results]
        ratio = median(
            cost / cpu_us(base) for cost, base in zip(costs, servers[BASELINE], strict=True)
        )
        lines.append(
            f"| {name} | {median(costs):.2f} ({min(costs):.2f}–{max(costs):.2f}) | {ratio:.2f} "
            f"| {_median(results, lambda r: r.rate):,.0f} "
            f"| {_latency(results, 'p50')} | {_latency(results, 'p99')} "
            f"| {_latency(results, 'p999')} | {_latency(results, 'max')} "
            f"| {_median(results, _pss_mib):.0f} | {sum(map(_errors, results))} |"
        )
    return "\n".join(lines)


def _idle_table(servers: dict[str, list[Result]]) -> str:
    lines = [
        f"**{IDLE.title}**",
        "",
        "| server | KiB per connection | Pss MiB | connections/s | CONNACK p99 ms |",
        "|---|---|---|---|---|",
    ]
    for name, results in servers.items():
        lines.append(
            f"| {name} | {_median(results, _kib_per_connection):.2f} "
            f"| {_median(results, _pss_mib):.0f} "
            f"| {_median(results, lambda r: r.connect_rate):,.0f} "
            f"| {_median(results, lambda r: r.connect.p99) / 1000:.1f} |"
        )
    return "\n".join(lines)


def _median(results: list[Result], value: Callable[[Result], float]) -> float:
    return median(map(value, results))


def _latency(results: list[Result], name: str) -> str:
    found: list[Any] = [getattr(r.latency, name) for r in results if r.latency is not None]
    return f"{median(found) / 1000:.2f}" if found else "–"


def _pss_mib(result: Result) -> float:
    assert result.server is not None
    return result.server.pss / 1048576


def _kib_per_connection(result: Result) -> float:
    assert result.server is not None
    return result.server.rss_per_connection / 1024


def _errors(result: Result) -> int:
    return (
        result.refused + result.stray + result.unsent + result.unacknowledged + result.lost
        + result.broken
    )  # fmt: skip
