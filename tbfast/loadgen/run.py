"""Runs one load test: connect, warm up, measure, drain."""

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Final

from tbfast._ext.loadgen import Flow, Generator, Goal
from tbfast.errors import LocalError, ResourceError
from tbfast.loadgen import frames, processes
from tbfast.loadgen.plan import Plan
from tbfast.loadgen.result import Latency, Result, Server

SLICE_S: Final = 0.1  # between two looks at progress and at Ctrl-C
_SPARE_FILES: Final = 64

# Phase, share of it that is done (0..1), messages so far.
Progress = Callable[[str, float, int], None]


class ServerUnusable(LocalError):
    """The server cannot be reached or refuses the devices."""


def run(plan: Plan, progress: Progress = lambda phase, share, messages: None) -> Result:
    """Runs it to the end; Ctrl-C goes through as KeyboardInterrupt.

    Raises ServerUnusable when not all devices can connect.
    """
    _allow_files(plan.connections + _SPARE_FILES)
    with _ledger(plan) as ledger_fd:
        test = _Run(plan, progress, ledger_fd)
        with contextlib.closing(test.generator):
            return test.run()


class _Run:
    def __init__(self, plan: Plan, progress: Progress, ledger_fd: int) -> None:
        self._plan = plan
        self._progress = progress
        publish, marker = frames.templates(plan)
        first_ts_ms = plan.first_ts_ms or time.time_ns() // 1_000_000
        self.generator = Generator(
            address=frames.server_address(plan.host, plan.port),
            sources=frames.source_addresses(plan),
            connects=frames.connects(plan),
            publish=publish,
            marker=marker,
            version=plan.version,
            qos=plan.qos,
            window=plan.depth,
            reconnect=plan.reconnect,
            first_ts_ms=first_ts_ms,
            burst=plan.burst,
            ledger_fd=ledger_fd,
            prefixes=frames.ledger_prefixes(plan) if ledger_fd >= 0 else [],
        )

    def run(self) -> Result:
        plan, generator = self._plan, self.generator
        empty = processes.memory(plan.pids)
        connect_rate = self._connect()
        if not plan.idle:
            self._start()
        if plan.warmup_s and not plan.idle:
            self._phase("warm-up", plan.warmup_s)
        if plan.qos == 0 and not plan.idle:
            self._consume()
            self._start()

        # The open loop started its clock with the flow; latency counts from here.
        began = time.monotonic_ns()
        generator.measure(began, began + int(plan.duration_s * 1e9))
        sent, acked = generator.sent, generator.acked
        cpu, own = processes.cpu_ns(plan.pids), time.process_time()
        self._phase("measuring", plan.duration_s)
        if plan.qos == 0 and not plan.idle:
            if plan.rate:
                self._quiet()
            self._consume()
        seconds = (time.monotonic_ns() - began) / 1e9
        own = time.process_time() - own
        messages = generator.sent - sent if plan.qos == 0 else generator.acked - acked
        spent = processes.spent_ns(cpu, processes.cpu_ns(plan.pids))
        memory = processes.memory(plan.pids)
        unsent, unacknowledged = self._drain()
        server = Server(
            cpu_us_per_message=round(spent / 1e3 / messages, 3) if messages else None,
            cpu_cores=round(spent / 1e9 / seconds, 3),
            rss=memory.rss,
            pss=memory.pss,
            rss_per_connection=round((memory.rss - empty.rss) / plan.connections, 1),
        )
        return Result(
            connections=plan.connections,
            connect_rate=round(connect_rate, 1),
            connect=Latency.of(generator.connect_time),
            messages=messages,
            seconds=round(seconds, 3),
            rate=round(messages / seconds, 1),
            latency=Latency.of(generator.latency) if generator.latency.count else None,
            lag=Latency.of(generator.lag) if plan.rate else None,
            refused=generator.refused,
            stray=generator.stray,
            unsent=unsent,
            unacknowledged=unacknowledged,
            lost=generator.lost,
            reconnects=generator.reconnects,
            broken=generator.broken,
            disconnect_code=code if (code := generator.last_disconnect) >= 0 else None,
            generator_cores=round(own / seconds, 3),
            server=server if plan.pids else None,
        )

    # --- phases ------------------------------------------------------------------------------

    def _connect(self) -> float:
        """Connections a second."""
        plan, generator = self._plan, self.generator
        began = time.monotonic()
        end = began + plan.connect_timeout_s
        while not generator.run(_ns(SLICE_S), Goal.CONNECTED):
            self._progress("connecting", generator.ready / plan.connections, 0)
            if time.monotonic() > end:
                break
        if generator.ready < plan.connections:
            raise ServerUnusable(self._why_not_connected())
        return plan.connections / (time.monotonic() - began)

    def _why_not_connected(self) -> str:
        plan, generator = self._plan, self.generator
        text = (
            f"{generator.ready} of {plan.connections} connections to {plan.host}:{plan.port} "
            "were accepted"
        )
        if generator.refusal_codes:
            codes = ", ".join(f"{n} with {code}" for code, n in generator.refusal_codes.items())
            return f"{text}; CONNACK refused {codes} (MQTT reason code); check the tokens"
        if generator.last_errno:
            return f"{text}; {os.strerror(generator.last_errno)}"
        return f"{text} within {plan.connect_timeout_s:g} s"

    def _start(self) -> None:
        rate = self._plan.rate
        self.generator.set_flow(Flow.CLOSED if rate is None else Flow.OPEN, rate or 0.0)

    def _phase(self, name: str, seconds: float) -> None:
        began = time.monotonic()
        while (gone := time.monotonic() - began) < seconds:
            self._progress(name, gone / seconds, max(self.generator.acked, self.generator.sent))
            self.generator.run(_ns(min(SLICE_S, seconds - gone)))
        self._progress(name, 1.0, max(self.generator.acked, self.generator.sent))

    def _consume(self) -> None:
        """Returns when the server has taken everything that was sent so far."""
        generator = self.generator
        generator.set_flow(Flow.PAUSED)
        generator.send_markers()
        if not self._quiet():
            raise ServerUnusable(
                f"the server did not consume what was sent within {self._plan.drain_timeout_s:g} s"
            )

    def _drain(self) -> tuple[int, int]:
        """Messages never sent and never acknowledged, after waiting for them."""
        generator = self.generator
        if self._plan.rate is None:
            generator.set_flow(Flow.PAUSED)
        if not self._plan.idle:
            self._quiet()
        return generator.due - generator.begun, generator.in_flight + generator.abandoned

    def _quiet(self) -> bool:
        end = time.monotonic() + self._plan.drain_timeout_s
        while not self.generator.run(_ns(SLICE_S), Goal.QUIET):
            self._progress("waiting for acknowledgements", 0.0, self.generator.acked)
            lost = self.generator.lost and not self._plan.reconnect
            if time.monotonic() > end or (lost and self.generator.in_flight == 0):
                return False  # what a lost device still owed will never be sent
        return True


def _ns(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


@contextlib.contextmanager
def _ledger(plan: Plan) -> Iterator[int]:
    if plan.ledger is None:
        yield -1
        return
    with plan.ledger.open("ab", buffering=0) as file:
        yield file.fileno()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            if hard != resource.RLIM_INFINITY and hard < wanted:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            else:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as error:
            raise ResourceError(
                f"{wanted} descriptors are needed and {hard} allowed; raise it with: "
                f"ulimit -n {wanted}"
            ) from error
