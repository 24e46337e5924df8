"""`python -m training.base.picture RUN OUT.svg`: the loss curve of a run as a picture, by hand and without a library."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
SERIES = (("loss", "#9db4c8", 1.0), ("valid-plain", "#1b6ca8", 2.0), ("valid-fim", "#c8553d", 2.0))
# Training losses are averaged over so many points, so that the line can be read.
POINTS = 200
TICKS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.write_text(draw(read(arguments.run / "curve.jsonl"), arguments.run.name))


def read(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Tokens and loss of each series."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in SERIES}
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
    points = [point for line in series.values() for point in line]
    if not points:
        raise SystemExit("the curve is empty")
    x_max = max(x for x, _ in points) or 1.0
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / x_max * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / span * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="22" font-size="14">{title}</text>',
    ]
    for tick in range(TICKS + 1):
        x, y = x_max * tick / TICKS, low + span * tick / TICKS
        across, down = place(x, y)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{y:.2f}</text>')
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - 30}" text-anchor="middle">{x:.2f}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">million tokens; loss in nats per token</text>')
    for index, (name, colour, width) in enumerate(one for one in SERIES if one[0] in series):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in series[name]))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT - 110}" y="{TOP + 16 * index}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
