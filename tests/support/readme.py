"""The commands of README.md, with their marks and the output they promise."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"(?:<!-- readme: (?P<mark>[^\n]*?) -->\n)?```(?P<kind>sh|console|python)\n(?P<text>.*?)```",
    re.DOTALL,
)


class Step(NamedTuple):
    """One command or Python program; promised is None where the document shows no output."""

    kind: str
    mark: str
    text: str
    promised: str | None


def steps() -> list[Step]:
    """Every command of the document in its order."""
    found = []
    for block in _BLOCK.finditer((ROOT / "README.md").read_text()):
        mark = block["mark"] or ""
        if block["kind"] != "console":
            found.append(Step(block["kind"], mark, block["text"], None))
            continue
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Step("console", mark, command, output))
    return found


def matches(promised: str, output: str) -> bool:
    """Whether the output is the promised one; … in the document stands for anything in a line."""
    pattern = "[^\n]*".join(re.escape(part) for part in promised.strip().split("…"))
    return re.fullmatch(pattern, output.strip()) is not None
