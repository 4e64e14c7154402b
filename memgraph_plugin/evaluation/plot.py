"""A figure of a few lines as SVG, by hand: no library for what is a page of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 400, 60
COLOURS = ("#1b6ca8", "#c1440e", "#2e7d32", "#6a1b9a", "#8d6e63")


def lines(series: Mapping[str, Sequence[float]], *, title: str, x: str, y: str) -> str:
    """Each series as a line over 0, 1, 2, ...; points are labelled with their values."""
    values = [value for each in series.values() for value in each]
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = (high - low) or 1.0
    steps = max((len(each) for each in series.values()), default=1) - 1 or 1

    def place(number: int, value: float) -> tuple[float, float]:
        across = MARGIN + number / steps * (WIDTH - 3 * MARGIN)
        return round(across, 1), round(HEIGHT - MARGIN - (value - low) / span * (HEIGHT - 2 * MARGIN), 1)

    drawn = []
    for number, (name, each) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [place(at, value) for at, value in enumerate(each)]
        path = " ".join(f"{a},{b}" for a, b in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (a, b), value in zip(points, each, strict=True):
            drawn.append(f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>')
            drawn.append(f'<text x="{a}" y="{b - 8}" fill="{colour}" text-anchor="middle">{value:.1f}</text>')
        if points:
            a, b = points[-1]
            drawn.append(f'<text x="{a + 12}" y="{b + 4}" fill="{colour}">{escape(name)}</text>')
    base = HEIGHT - MARGIN
    ticks = [
        f'<text x="{place(n, low)[0]}" y="{base + 20}" text-anchor="middle">{n}</text>'
        for n in range(steps + 1)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<text x="{WIDTH / 2}" y="24" text-anchor="middle" font-size="14">{escape(title)}</text>',
            f'<path d="M{MARGIN},{MARGIN} V{base} H{WIDTH - MARGIN}" fill="none" stroke="#444"/>',
            f'<text x="{WIDTH / 2}" y="{HEIGHT - 15}" text-anchor="middle">{escape(x)}</text>',
            f'<text x="{MARGIN}" y="{MARGIN - 10}">{escape(y)}</text>',
            *ticks,
            *drawn,
            "</svg>\n",
        ]
    )
