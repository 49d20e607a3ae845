"""The picture of `make bench`: error on the test scenes against speed, one panel a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

STYLES = {
    "ours": {"marker": "o", "color": "#0b6e4f"},
    "dsen2": {"marker": "s", "color": "#b3472c"},
    "sized": {"marker": "|", "color": "#6b6b6b"},
    "bicubic": {"marker": "D", "color": "#6b6b6b"},
}
TITLES = {"20m": "20 m bands to 10 m", "60m": "60 m bands to 10 m"}


def draw(figures: dict[str, list[dict[str, Any]]], setting: str, path: Path) -> None:
    """Write the picture. ``figures``: the rows of each task's table; those without an error are drawn at the edge."""
    tasks = [task for task, rows in figures.items() if any(row["rmse"] for row in rows)]
    figure, panels = plt.subplots(1, len(tasks), figsize=(6.4 * len(tasks), 4.8), squeeze=False, layout="constrained")
    for axes, task in zip(panels[0], tasks, strict=True):
        _panel(axes, figures[task], TITLES.get(task, task))
    figure.suptitle(f"Error against speed, {setting}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    # The engines that run one network share its error: of those the picture shows the fastest.
    points = [row for row in rows if row["rmse"] and row["mpx_per_s"]]
    axes.set_xscale("log")
    axes.set_yscale("log")
    errors = [row["rmse"] for row in points]
    axes.set_ylim(min(errors) * 0.8, max(errors) * 1.35)
    speeds = [row["mpx_per_s"]["median"] for row in rows if row["mpx_per_s"]]
    axes.set_xlim(min(speeds) * 0.35, max(speeds) * 4)
    for place, row in enumerate(sorted(points, key=lambda row: row["mpx_per_s"]["median"])):
        x = row["mpx_per_s"]
        style = STYLES[row["group"]]
        axes.errorbar(
            x["median"],
            row["rmse"],
            xerr=[[x["median"] - x["lowest"]], [x["highest"] - x["median"]]],
            ms=7,
            lw=1,
            capsize=2,
            ls="none",
            **style,
        )
        # Ours lie close together: steep labels do not meet.
        ours = row["group"] == "ours"
        above = ours or place % 2 == 0
        axes.annotate(
            row["label"],
            (x["median"], row["rmse"]),
            xytext=(0, 9 if above else -9),
            textcoords="offset points",
            ha="left" if ours else "center",
            va="bottom" if above else "top",
            rotation=60 if ours else 0,
            rotation_mode="anchor",
            fontsize=8,
            color=style["color"],
        )
    for row in rows:
        if row["group"] == "sized" and row["mpx_per_s"]:
            x = row["mpx_per_s"]["median"]
            axes.axvline(x, color=STYLES["sized"]["color"], lw=1, ls=":")
            axes.annotate(
                f"{row['label']}\n(its speed alone)",
                (x, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(4, 0),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color=STYLES["sized"]["color"],
            )
    axes.set(title=title, xlabel="MPx of 10 m per second", ylabel="RMSE on the test scenes (DN)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}" if axis is axes.yaxis else "")
    axes.tick_params(which="both", labelsize=8)
    axes.grid(which="both", lw=0.4, alpha=0.4)
