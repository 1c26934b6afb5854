"""The tables as a picture; needs matplotlib (the extra ``plots``)."""

from pathlib import Path
from statistics import median

import matplotlib as mpl

from benches.fleet.scenarios import BASELINE, SCENARIOS
from benches.fleet.summary import Rounds, cpu_us

_BLUES = ("#08519c", "#3182bd", "#6baed6", "#bdd7e7")


def draw(rounds: Rounds, path: Path) -> None:
    """CPU per message as a share of the baseline's, by scenario; format by the file's suffix."""
    mpl.use("Agg")
    from matplotlib import pyplot

    shown = [scenario for scenario in SCENARIOS if scenario.key in rounds]
    if not shown:
        return
    servers = [name for name in rounds[shown[0].key] if name != BASELINE]
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.8 / len(servers)
    for i, (server, colour) in enumerate(zip(servers, _BLUES, strict=True)):
        costs = [median(map(cpu_us, rounds[scenario.key][server])) for scenario in shown]
        bases = [median(map(cpu_us, rounds[scenario.key][BASELINE])) for scenario in shown]
        bars = axes.bar(
            [x + (i + 0.5) * width for x in range(len(shown))],
            [cost / base for cost, base in zip(costs, bases, strict=True)],
            width, label=server, color=colour,
        )  # fmt: skip
        axes.bar_label(bars, [f"{cost:.2f}" for cost in costs], fontsize=7)
    axes.axhline(1.0, color="#666666", linewidth=1, label=BASELINE)
    axes.set_xticks([x + 0.4 for x in range(len(shown))], [scenario.key for scenario in shown])
    axes.set_ylabel(f"CPU per message, {BASELINE} = 1 (on the bars: µs)")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
