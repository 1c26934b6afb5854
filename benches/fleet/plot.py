"""The table as a picture; needs matplotlib (the extra ``plots``)."""

from pathlib import Path
from statistics import median

import matplotlib as mpl

from benches.fleet.scenarios import BASELINE, SCENARIOS
from benches.fleet.summary import Rounds, cpu_us

_GREY, _BLUES = "#9a9a9a", ("#08519c", "#3182bd", "#6baed6", "#bdd7e7")


def draw(rounds: Rounds, path: Path) -> None:
    """CPU per message by scenario, one bar per server; format by the file's suffix."""
    mpl.use("Agg")
    from matplotlib import pyplot

    shown = [scenario for scenario in SCENARIOS if scenario.key in rounds]
    servers = list(rounds[shown[0].key])
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.8 / len(servers)
    blues = iter(_BLUES * len(servers))
    for i, server in enumerate(servers):
        costs = [median(map(cpu_us, rounds[scenario.key][server])) for scenario in shown]
        bars = axes.bar(
            [x + i * width for x in range(len(shown))], costs, width, label=server,
            color=_GREY if server == BASELINE else next(blues),
        )  # fmt: skip
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks([x + 0.4 - width / 2 for x in range(len(shown))], [s.key for s in shown])
    axes.set_ylabel("whole-server CPU, µs per message (log)")
    axes.set_yscale("log")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
