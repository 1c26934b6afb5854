"""Rewrites the generated tables of README.md: deploy/docs.py [--check].

Each stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.  With --check nothing is
written and the exit code is 1 if a table is not current.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

from tbfast.cli.main import main as tbfast
from tbfast.obs.catalogue import FAMILIES

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def command(*words: str) -> str:
    """Output of a tbfast command."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if tbfast(words) != 0:
            raise SystemExit(f"tbfast {' '.join(words)} failed")
    return out.getvalue()


def metrics() -> str:
    """The catalogue as a table."""
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for family in FAMILIES:
        labels = dict.fromkeys(name for series in family.series for name, _ in series.labels)
        if family.combine in ("process", "worker"):
            labels[family.combine] = None
        row = (f"`{family.name}`", family.kind, ", ".join(labels), family.help)
        lines.append(f"| {' | '.join(row)} |")
    lines.append("")
    lines.append(
        "Also `tbfast_up` and, per process, `process_cpu_seconds_total`, "
        "`process_resident_memory_bytes`, `process_open_fds` and `tbfast_disk_written_bytes_total` "
        "(the kernel's `write_bytes`); `tbfast_ready` is `/readyz`."
    )
    return "\n".join(lines) + "\n"


TABLES = {
    "config": lambda: command("config", "--markdown"),
    "limits": lambda: command("config", "--limits", "--markdown"),
    "metrics": metrics,
}


def main() -> int:
    """0 if the file is current or was rewritten."""
    old = README.read_text()
    new = BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]().strip()}\n\n{m[3]}", old)
    if "--check" not in sys.argv:
        README.write_text(new)
        return 0
    if new != old:
        print("README.md: generated tables are not current; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
