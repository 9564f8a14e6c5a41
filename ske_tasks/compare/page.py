"""The page of a comparison: tables, a plot, and every question side by side. One file, needs no network.

python -m ske_tasks.compare RUN RUN --html compare.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ske_models.files import write_text
from ske_tasks.compare.table import Comparison, costs, differences, left_out, p_value
from ske_tasks.intervals import Interval

MOST = 6_000  # questions; of more, those that the runs answer differently come first
LONGEST = 6_000  # characters of one text
WIDTH, ROW, LEFT, RIGHT = 760, 15, 150, 20  # of the plot, in px
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito


def write(path: Path, found: Comparison) -> None:
    """Raises UserError if the file cannot be written."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("page.html.j2").render(
        names=found.names,
        n=len(found.keys),
        accuracies=_accuracies(found),
        differences=_differences(found),
        costs=costs(found),
        notes=[*differences(found.runs), *(f"left out: {line}" for line in left_out(found.runs))],
        plot=Markup(_plot(found)),  # noqa: S704 - made here, of numbers and escaped names
        data=Markup(_data(found)),  # noqa: S704 - JSON in which no tag can end
        shown=min(MOST, len(found.keys)),
    )
    write_text(path, page)


def _accuracies(found: Comparison) -> list[tuple[str, int, list[Interval]]]:
    runs = range(len(found.runs))
    rows = []
    for group in found.pairs.groups:
        cells = [found.pairs.accuracy(group, run) for run in runs]
        rows.append((group, cells[0].n, cells))
    if len(rows) > 1:
        rows.append(("average", len(found.keys), [found.pairs.average(run) for run in runs]))
    return rows


def _differences(found: Comparison) -> list[dict[str, Any]]:
    """Every run against the first one, by benchmark and on average."""
    groups: list[str | None] = [*found.pairs.groups]
    sections = []
    for run in range(1, len(found.runs)):
        rows = []
        for group in groups + ([None] if len(groups) > 1 else []):
            gained, lost = found.pairs.flips(run, 0, group)
            points = found.pairs.difference(run, 0, group)
            rows.append((group or "average", str(points), gained, lost, p_value(gained, lost)))
        sections.append({"name": f"{found.names[run]} minus {found.names[0]}", "rows": rows})
    return sections


def _plot(found: Comparison) -> str:
    """Accuracies with their intervals, as SVG: a band per benchmark, a line per run."""
    rows = _accuracies(found)
    runs, scale = len(found.runs), (WIDTH - LEFT - RIGHT) / 100
    band = runs * ROW + 12
    height = len(rows) * band + 30
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Accuracy by benchmark and run">']
    for percent in range(0, 101, 20):
        x = LEFT + percent * scale
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height - 24}"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{percent}</text>')
    for place, (group, _, cells) in enumerate(rows):
        top = place * band + 10
        label = Markup.escape(group)
        parts.append(f'<text x="{LEFT - 10}" y="{top + band / 2 - 4}" text-anchor="end">{label}</text>')
        for run, cell in enumerate(cells):
            y, colour = top + run * ROW + 4, COLOURS[run % len(COLOURS)]
            low, mean, high = (LEFT + value * scale for value in (cell.low, cell.mean, cell.high))
            title = f"<title>{Markup.escape(found.names[run])}, {label}: {cell}</title>"
            parts.append(
                f'<g stroke="{colour}" fill="{colour}">{title}<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" '
                f'y2="{y}" stroke-width="2.5"/><circle cx="{mean:.1f}" cy="{y}" r="4.5"/></g>'
            )
    legend = " ".join(
        f'<span><i style="background:{COLOURS[run % len(COLOURS)]}"></i>{Markup.escape(name)}</span>'
        for run, name in enumerate(found.names)
    )
    return f'{"".join(parts)}</svg><p class="legend">{legend}</p>'


def _data(found: Comparison) -> str:
    """The questions as JSON that can be put into a script element."""
    columns = [found.column(run) for run in range(len(found.runs))]
    places = list(range(len(found.keys)))
    if len(places) > MOST:
        places.sort(key=lambda place: len({column[place].right for column in columns}) == 1)
        places = sorted(places[:MOST])
    items = []
    for place in places:
        row = [column[place] for column in columns]
        texts = row[0].texts
        items.append(
            {
                "b": row[0].group,
                "id": f"{row[0].task}/{row[0].name}",
                "q": _cut(texts.get("question", "")),
                "g": texts.get("gold", ""),
                "r": [
                    {
                        "v": int(item.right),
                        "k": _cut(item.texts.get("knowledge", "")),
                        "a": _cut(item.texts.get("answer", "")),
                        "p": item.texts.get("prediction", ""),
                        "n": item.tokens,
                    }
                    for item in row
                ],
            }
        )
    text = json.dumps({"names": found.names, "items": items}, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} [... {len(text) - LONGEST} characters more]"
