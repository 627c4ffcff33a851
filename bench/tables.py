"""README's tables of speed, made from the pages of the machines that were measured.

    python bench/tables.py [--write]

`text.py` and `vision.py` write, with --write NAME, all that they found on a machine into bench/machines/NAME.md: what
was measured, what was wanted, what missed it, and what the machine can do at best. README is for users: it shows of
each work opsin, the fastest of its peers and the ratio, side by side on all these machines, and "-" where one was not
measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MACHINES = ROOT / "bench" / "machines"
UNITS = {"bench:text": "tokens a second", "bench:vision": "seconds"}


def between(page: str, mark: str) -> tuple[str, str, str]:
    """What stands before, between and after a mark's two comments; ValueError where they do not stand once each."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"a page of figures needs {begin.strip()} and {end}, each once")
    before, rest = page.split(begin)
    text, after = rest.split(end)
    return before + begin, text, end + after


def replace(path: Path, mark: str, text: str) -> None:
    """Write between a mark's two comments."""
    before, _, after = between(path.read_text(encoding="utf-8"), mark)
    path.write_text(f"{before}{text}\n{after}", encoding="utf-8")


def compared(page: str, mark: str) -> dict[str, tuple[str, str, str]]:
    """(opsin, the fastest peer, ratio) of each work: the rows of the first table that a page has at a mark."""
    found = {}
    for cells in _rows(between(page, mark)[1]):
        work, ours, *theirs = cells[: next(i for i, cell in enumerate(cells) if cell.startswith("**"))]
        best = (max if mark == "bench:text" else min)((cell for cell in theirs if cell != "-"), key=float)
        found[work] = (ours, best, cells[1 + len(theirs) + 1])
    return found


def peers(page: str, mark: str) -> str:
    """Those of the first table that a page has at a mark: its columns behind opsin's that tell a unit."""
    head = next((line for line in between(page, mark)[1].splitlines() if line.startswith("| work |")), "")
    names = [cell.split(",")[0] for cell in _cells(head)[2:] if "," in cell]
    return " or ".join(dict.fromkeys(names)) or "peer"


def _rows(text: str) -> Iterator[list[str]]:
    """Cells of the rows that hold a ratio, which is set in bold."""
    for cells in map(_cells, text.splitlines()):
        if len(cells) > 3 and any(cell.startswith("**") for cell in cells):
            yield cells


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def table(pages: dict[str, str], mark: str) -> str:
    """Markdown: a row for each work, three columns for each machine."""
    machines = {name: compared(page, mark) for name, page in pages.items()}
    works = dict.fromkeys(work for rows in machines.values() for work in rows)
    head = [f"{UNITS[mark]}, on"]
    head += [f"{name}: opsin | {peers(page, mark)} | ratio" for name, page in pages.items()]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|---:|---:|" * len(machines)]
    for work in works:
        cells = [cell for rows in machines.values() for cell in rows.get(work, ("-", "-", "-"))]
        lines.append(f"| {' | '.join([work, *cells])} |")
    return "\n".join(lines)


def machines() -> dict[str, str]:
    """The pages by their titles."""
    pages = [path.read_text(encoding="utf-8") for path in sorted(MACHINES.glob("*.md"))]
    return {page.splitlines()[0].removeprefix("# "): page for page in pages}


def publish(name: str, mark: str, text: str) -> None:
    """Keep what one machine gave, and bring README up to date. ValueError where nobody began a page for it."""
    path = MACHINES / f"{name}.md"
    if not path.exists():
        raise ValueError(f"begin {path.relative_to(ROOT)} with a title, and the markers of {' and '.join(UNITS)}")
    replace(path, mark, text)
    write_readme()


def write_readme() -> None:
    """Both tables."""
    for mark in UNITS:
        replace(README, mark, table(machines(), mark))


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into README.md")
    if parser.parse_args().write:
        write_readme()
    else:
        print("\n\n".join(table(machines(), mark) for mark in UNITS))


if __name__ == "__main__":
    main()
