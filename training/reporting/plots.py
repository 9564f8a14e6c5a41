"""The pictures of a run, as PNG files; every number in them is also in the report's tables.

from training.reporting.plots import accuracy
accuracy(Path("accuracy.png"), "made up", accuracies(results(run)))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from ske_tasks.intervals import Interval
from training.reporting.tables import EXTRACTION

# Okabe and Ito's palette, which the colour-blind can tell apart, darkened where it must be read on white.
INK, QUIET, FAINT = "#1b1f24", "#6a737d", "#d8dde3"
METHODS = {
    "explicit": ("#0072b2", "-", "o"),
    "cot": ("#d55e00", "-", "s"),
    "direct": ("#767c84", "-", "D"),
    EXTRACTION: ("#009e73", (0, (4, 2)), "^"),
}
NAMES = {"cot": "CoT", EXTRACTION: "knowledge right"}
KIND_COLOURS = {"knowledge": "#0072b2", "reasoning": "#d55e00"}
STAGE_COLOURS = {
    "base": "#999999", "questions": "#f0e442", "synthesize": "#56b4e9", "judge": "#0072b2",
    "agreement": "#003f66",
    "select": "#cc79a7", "mix": "#e8c9dc", "sft": "#d55e00", "evaluate": "#009e73",
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.hashsalt": "ske",
}
Panel = Mapping[str, Mapping[int, Interval]]  # method -> checkpoint -> accuracy


def accuracy(path: Path, panels: Mapping[str, Panel], checkpoints: int) -> None:
    """M0 ... M`checkpoints`, a panel for each title, a line per method, 95 % intervals as bars."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        wide = 6.6 if columns == 1 else 4.1 * columns
        figure = Figure(figsize=(wide, 3.9 if rows == 1 else 3.3 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for i, (ax, (title, panel)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
            _lines(ax, panel, checkpoints)
            ax.set_title(title, pad=10)
            if i % columns == 0:
                ax.set_ylabel("accuracy, percent")
        figure.text(1, 0, "bars: 95 % intervals", ha="right", va="bottom", color=QUIET, fontsize=8)
        _save(figure, path)


def _lines(ax: Axes, panel: Panel, checkpoints: int) -> None:
    methods = [method for method in METHODS if panel.get(method)]
    low = min(cell.low for method in methods for cell in panel[method].values())
    high = max(cell.high for method in methods for cell in panel[method].values())
    ax.set_ylim(max(0, low - 6) if low > 25 else 0, min(102, high + 6))
    ax.set_xlim(-0.25, checkpoints + 0.25)
    ends = []
    for i, method in enumerate(methods):
        colour, line, marker = METHODS[method]
        series = panel[method]
        xs = [k + 0.035 * (i - (len(methods) - 1) / 2) for k in series]  # bars beside, not over each other
        means = [cell.mean for cell in series.values()]
        bars = [
            [max(0, cell.mean - cell.low) for cell in series.values()],
            [max(0, cell.high - cell.mean) for cell in series.values()],
        ]
        ax.errorbar(
            xs, means, yerr=bars, color=colour, linestyle=line, marker=marker, markersize=5, linewidth=1.8,
            elinewidth=1.2, zorder=3 + (method == "explicit"),
        )  # fmt: skip
        ends.append((means[-1], f"{NAMES.get(method, method)}  {means[-1]:.1f}", colour))
    ax.set_xticks(range(checkpoints + 1), [f"M{k}" for k in range(checkpoints + 1)])
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.grid(axis="y", color=FAINT, linewidth=0.7)
    ax.set_axisbelow(True)
    _labels(ax, ends)


def _labels(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the lines' ends, pushed apart where they would touch."""
    bottom, top = ax.get_ylim()
    gap = (top - bottom) * 0.062
    at: list[float] = []
    for value, _, _ in sorted(ends):
        at.append(max(value, at[-1] + gap) if at else value)
    over = max(0.0, at[-1] - top + gap / 2)
    for position, (value, text, colour) in zip(at, sorted(ends), strict=True):
        ax.annotate(
            text,
            (1.0, value),
            (1.02, (position - over - bottom) / (top - bottom)),
            xycoords=ax.get_yaxis_transform(),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontweight="bold" if text.startswith("explicit") else "normal",
        )


def histograms(path: Path, rounds: Mapping[int, Mapping[str, Any]]) -> None:
    """A column per round, a row per kind: texts by score; what reaches the threshold is coloured.

    rounds: round -> the counts of its selection.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(2.5 * len(rounds), 4.2), 4.2), layout="constrained")
        axes = figure.subplots(2, len(rounds), squeeze=False, sharex=True)
        for column, (n, counts) in enumerate(rounds.items()):
            for row, (kind, colour) in enumerate(KIND_COLOURS.items()):
                ax, values, threshold = axes[row, column], counts["histogram"][kind], counts["threshold"]
                colours = [colour if score >= threshold else FAINT for score in range(1, 11)]
                ax.bar(range(1, 11), values, color=colours, width=0.82)
                total, high = sum(values), sum(values[threshold - 1 :])
                said = f"{high / total:.0%} have {threshold} or more" if total else "none is scored"
                ax.set_title(f"Round {n}: {kind}\n" if row == 0 else f"{kind}\n", fontweight="bold")
                ax.annotate(said, (0, 1.03), xycoords="axes fraction", color=QUIET, fontsize=8.5)
                ax.set_xticks(range(1, 11))
                ax.tick_params(axis="x", length=0)
                ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes[1, column].set_xlabel("score")
        axes[0, 0].set_ylabel("texts")
        axes[1, 0].set_ylabel("texts")
        _save(figure, path)


def agreement(path: Path, rounds: Mapping[int, Mapping[str, Sequence[Sequence[int]]]], truth: str) -> None:
    """A heat map a round and kind: how many texts have which self-given score and which score by `truth`.

    rounds: round -> kind -> [[self-given score, score by `truth`, texts], ...].
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(2.6 * len(rounds), 3.4), 5.4), layout="constrained")
        axes = figure.subplots(2, len(rounds), squeeze=False, sharex=True, sharey=True)
        for column, (n, kinds) in enumerate(rounds.items()):
            for row, kind in enumerate(KIND_COLOURS):
                _heat(axes[row, column], kinds[kind])
                axes[row, column].set_title(f"Round {n}: {kind}" if row == 0 else kind, fontweight="bold")
            axes[1, column].set_xlabel("self-given score")
        for ax in axes[:, 0]:
            ax.set_ylabel(f"score by {truth}")
        _save(figure, path)


def _heat(ax: Axes, cells: Sequence[Sequence[int]]) -> None:
    grid = [[0] * 10 for _ in range(10)]
    for mine, truth, texts in cells:
        grid[truth - 1][mine - 1] = texts
    most = max(map(max, grid)) or 1
    ax.imshow(grid, cmap="Blues", origin="lower", extent=(0.5, 10.5, 0.5, 10.5), vmin=0, vmax=most)
    for score in range(1, 11):  # where both agree
        ax.add_patch(Rectangle((score - 0.5, score - 0.5), 1, 1, fill=False, edgecolor=FAINT, linewidth=0.6))
    for mine, truth, texts in cells:
        dark = texts > most / 2
        ax.text(
            mine, truth, f"{texts}", ha="center", va="center", fontsize=6.5, color="white" if dark else INK
        )
    ax.set_xticks(range(1, 11))
    ax.set_yticks(range(1, 11))
    ax.tick_params(length=0, labelsize=7.5)
    ax.spines[:].set_visible(False)


def meta_skills(
    path: Path, means: Mapping[str, Mapping[int, Interval]], checkpoints: int, judge: str
) -> None:
    """The mean score of what each checkpoint writes. means: kind -> checkpoint -> mean score."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.4), layout="constrained")
        ax = figure.subplots()
        ends = []
        for kind, series in means.items():
            values = list(series.values())
            bars = [[v.mean - v.low for v in values], [v.high - v.mean for v in values]]
            ax.errorbar(
                list(series), [v.mean for v in values], yerr=bars, color=KIND_COLOURS[kind], marker="o",
                markersize=5, linewidth=1.8, elinewidth=1.2,
            )  # fmt: skip
            ends.append((values[-1].mean, f"{kind}  {values[-1].mean:.2f}", KIND_COLOURS[kind]))
        ax.set_xticks(range(checkpoints + 1), [f"M{k}" for k in range(checkpoints + 1)])
        ax.set_xlim(-0.25, checkpoints + 0.25)
        ax.set_ylim(1, 10.2)
        ax.grid(axis="y", color=FAINT, linewidth=0.7)
        ax.set_ylabel(f"mean score by {judge}, 1 to 10")
        _labels(ax, ends)
        _save(figure, path)


def times(path: Path, seconds: Mapping[int, Mapping[str, float]]) -> None:
    """Minutes of each stage, a bar a round. seconds: round -> stage -> seconds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 0.75 + 0.42 * len(seconds)), layout="constrained")
        ax = figure.subplots()
        for i, stages in enumerate(seconds.values()):
            left = 0.0
            for stage, spent in stages.items():
                ax.barh(i, spent / 60, left=left, color=STAGE_COLOURS[stage], height=0.66)
                left += spent / 60
            ax.annotate(f" {left:.1f}", (left, i), va="center", color=QUIET)
        names = [f"Round {n}" if n else "M0" for n in seconds]
        ax.set_yticks(range(len(seconds)), names)
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("minutes")
        used = [stage for stage in STAGE_COLOURS if any(stage in stages for stages in seconds.values())]
        handles = [Patch(color=STAGE_COLOURS[stage], label=stage) for stage in used]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(used), frameon=False, fontsize=8,
                      handlelength=1, columnspacing=1)  # fmt: skip
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Whole or not at all, and the same bytes for the same numbers."""
    new = path.with_name(f".{path.name}")
    figure.savefig(new, format="png", dpi=170, facecolor="white", metadata={"Software": None})
    new.replace(path)
