"""`python -m training.base.picture RUN OUT.svg`: the loss curve of a run as a picture, by hand and without a library."""

from __future__ import annotations

import argparse
import html
import json
import math
from pathlib import Path

from .paths import RUN_FIRST, needed

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
# Name in the curve, label, colour, width.
SERIES = (
    ("loss", "training", "#6f8aa3", 1.0),
    ("valid-plain", "held-out files", "#1b6ca8", 2.0),
    ("valid-fim", "held-out files, rearranged", "#c8553d", 2.0),
)
# Training losses are averaged over so many points, so that the line can be read.
POINTS = 200
TICKS = 6
# Share of the run, at its beginning, that is not drawn.
HIDDEN_SHARE = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--title", help="the run's folder when absent")
    arguments = parser.parse_args()
    arguments.out.write_text(draw(read(needed(arguments.run / "curve.jsonl", RUN_FIRST)), arguments.title or arguments.run.name))


def read(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Tokens and loss of each series."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in SERIES}
    for line in map(json.loads, path.read_text().splitlines()):
        for name in found:
            if name in line:
                found[name].append((line["tokens"] / 1e6, line[name]))
    found["loss"] = averaged(found["loss"])
    return {name: points for name, points in found.items() if points}


def averaged(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = max(1, len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]


def draw(series: dict[str, list[tuple[float, float]]], title: str) -> str:
    """SVG with both axes."""
    x_max = max((x for line in series.values() for x, _ in line), default=0.0)
    # The first fall from the loss of guessing would leave the rest no height.
    series = {name: [point for point in line if point[0] >= HIDDEN_SHARE * x_max] for name, line in series.items()}
    losses = [y for line in series.values() for _, y in line]
    if not losses:
        raise SystemExit("the curve is empty")
    across, up = ticks(0.0, x_max or 1.0), ticks(min(losses), max(losses))
    low, high = min(up[0], min(losses)), max(up[-1], max(losses))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / (x_max or 1.0) * (WIDTH - LEFT - RIGHT),
            TOP + (high - y) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="22" font-size="14">{html.escape(title)}</text>',
    ]
    for y in up:
        down = place(0, y)[1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in across:
        parts.append(f'<text x="{place(x, low)[0]:.1f}" y="{HEIGHT - 30}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">million tokens, after the first {100 * HIDDEN_SHARE:.0f} %</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 4}" fill="#555">loss, nats per token</text>')
    for index, (name, label, colour, width) in enumerate(one for one in SERIES if series.get(one[0])):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in series[name]))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT - 180}" y="{TOP + 16 * index + 4}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover a range, about TICKS of them."""
    raw = (high - low) / TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [round(index * step, 10) for index in range(math.floor(low / step), math.floor(high / step) + 1)]


if __name__ == "__main__":
    main()
