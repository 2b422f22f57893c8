"""Charts as inline SVG text: pure functions from numbers to markup, no external resource."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.screen import html_text

COLOURS = ("#0b6e99", "#c1510a", "#4a7a28", "#7a4fa3", "#a3324f", "#5c6b73")
"""Distinguishable also without red-green vision."""
GRID = "#e3e6e8"
INK = "#5c6b73"

SMALLEST_SHARE = 0.005
"""Bars that are shorter before and after are left out."""

_LABEL_CHARACTERS = 28
"""That 200 units of width hold, left of a bar."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 12.0, 34.0

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A named line: ``points`` as a thin trace or dots, ``smooth`` as the thick line."""

    name: str
    colour: str
    points: Sequence[Point]
    smooth: Sequence[Point] = ()
    is_marked: bool = False
    """Draw the points as circles joined by a dashed line."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Maps data to picture coordinates."""

    width: float
    height: float
    x_range: Point
    y_range: Point

    def x(self, value: float) -> float:
        low, high = self.x_range
        inner = self.width - _LEFT - _RIGHT
        return _LEFT + inner * (value - low) / ((high - low) or 1.0)

    def y(self, value: float) -> float:
        low, high = self.y_range
        inner = self.height - _TOP - _BOTTOM
        return self.height - _BOTTOM - inner * (value - low) / ((high - low) or 1.0)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_max: float | None = None,
    is_share: bool = True,
    width: float = 640,
    height: float = 280,
) -> str:
    """Lines over a common x axis; shares are shown in percent from 0 to 100."""
    points = [point for line in series for point in (*line.points, *line.smooth)]
    if not points:
        return ""
    top = 1.0 if is_share else (y_max or max(y for _, y in points) * 1.1 or 1.0)
    xs = [x for x, _ in points]
    frame = _Frame(width, height, (min(0.0, *xs), max(xs)), (0.0, top))
    body = [_axes(frame, x_label, is_share=is_share)]
    body += [_line(frame, line) for line in series]
    return _svg(width, height, title, "".join(body)) + legend(
        [(line.name, line.colour) for line in series]
    )


def histogram(
    counts: Mapping[str, int], *, title: str, x_label: str, width: float = 360, height: float = 220
) -> str:
    """Vertical bars of counts, labelled with their share."""
    total = sum(counts.values())
    if not total:
        return ""
    top = max(counts.values()) / total
    frame = _Frame(width, height, (0.0, float(len(counts))), (0.0, top * 1.18))
    base = frame.y(0.0)
    body = [_text(width / 2, height - 4, x_label, anchor="middle")]
    for index, (name, count) in enumerate(counts.items()):
        share = count / total
        left, right, y = frame.x(index + 0.15), frame.x(index + 0.85), frame.y(share)
        middle = (left + right) / 2
        body.append(_bar(left, y, right - left, base - y, COLOURS[0], f"{name}: {count}"))
        body.append(_text(middle, base + 14, name, anchor="middle"))
        body.append(_text(middle, y - 4, f"{share:.0%}" if share >= 0.01 else "<1%", "middle"))
    body.append(
        f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{base}" y2="{base}" stroke="{INK}"/>'
    )
    return _svg(width, height, title, "".join(body))


def paired_bars(
    before: Mapping[str, float], after: Mapping[str, float], *, title: str, width: float = 480
) -> str:
    """Two horizontal bars per name: its share before (pale) and after (full)."""
    largest = {name: max(before.get(name, 0), after.get(name, 0)) for name in {**before, **after}}
    names = sorted(
        (name for name in largest if largest[name] >= SMALLEST_SHARE), key=lambda n: -largest[n]
    )
    if not names:
        return ""
    row, label, bars = 34.0, 232.0, width - 232.0 - 40.0
    body = []
    for index, name in enumerate(names):
        top = 4 + index * row
        body.append(_text(label - 8, top + 16, name, anchor="end"))
        for offset, shares, colour in ((0, before, "#b9c6cc"), (12, after, COLOURS[0])):
            share = shares.get(name, 0.0)
            length = max(1.0, bars * share)
            body.append(_bar(label, top + offset, length, 10, colour, f"{name}: {share:.1%}"))
            body.append(_text(label + length + 5, top + offset + 9, f"{share:.0%}"))
    return _svg(width, 8 + row * len(names), title, "".join(body))


def interval_bars(
    shares: Sequence[tuple[str, tuple[float, float, float]]], *, title: str, width: float = 640
) -> str:
    """One horizontal bar per name: its mean, with a line from the low to the high end.

    Names may be equal; one that has no room is cut, and whole in the hint of its bar.
    """
    if not shares:
        return ""
    row, label, bars = 26.0, 200.0, width - 200.0 - 60.0
    body = []
    for index, (name, (mean, low, high)) in enumerate(shares):
        top = 4 + index * row
        body.append(_text(label - 8, top + 14, _shortened(name), anchor="end"))
        hint = f"{name}: {mean:.1%} ({low:.1%} to {high:.1%})"
        body.append(_bar(label, top + 3, max(1.0, bars * mean), 14, "#b9d3df", hint))
        left, right, middle = label + bars * low, label + bars * high, top + 10
        body += [
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}" '
            f'stroke="{COLOURS[0]}" stroke-width="2"/>',
            *(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 5}" y2="{middle + 5}" '
                f'stroke="{COLOURS[0]}" stroke-width="2"/>'
                for x in (left, right)
            ),
        ]
        body.append(_text(label + bars * max(mean, high) + 6, top + 14, f"{mean:.1%}"))
    return _svg(width, 8 + row * len(shares), title, "".join(body))


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL_CHARACTERS else f"{name[: _LABEL_CHARACTERS - 1]}…"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Coloured names below a chart."""
    items = "".join(
        f'<span><i style="background:{colour}"></i>{html_text(name)}</span>'
        for name, colour in entries
    )
    return f'<div class="legend">{items}</div>'


def smoothed(points: Sequence[Point], *, span: int = 5) -> list[Point]:
    """The mean of each point and up to ``span - 1`` before it."""
    result = []
    for index, (x, _) in enumerate(points):
        window = [y for _, y in points[max(0, index - span + 1) : index + 1]]
        result.append((x, sum(window) / len(window)))
    return result


def ticks(low: float, high: float, *, about: int = 6) -> list[float]:
    """Round values from ``low`` to ``high``, at most about so many."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    magnitude = 1.0
    while magnitude * 10 <= rough:
        magnitude *= 10
    while magnitude > rough:
        magnitude /= 10
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    first = -(-low // step) * step
    return [first + index * step for index in range(int((high - first) / step + 1e-9) + 1)]


def _axes(frame: _Frame, x_label: str, *, is_share: bool) -> str:
    parts = []
    for value in ticks(*frame.y_range, about=5):
        y = frame.y(value)
        label = f"{value:.0%}" if is_share else f"{value:g}"
        right = frame.width - _RIGHT
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_text(_LEFT - 6, y + 4, label, anchor="end"))
    bottom = frame.height - _BOTTOM
    for value in ticks(*frame.x_range, about=8):
        if value == int(value):
            parts.append(_text(frame.x(value), bottom + 16, f"{value:g}", anchor="middle"))
    parts.append(_text(frame.width / 2, frame.height - 3, x_label, anchor="middle"))
    return "".join(parts)


def _line(frame: _Frame, line: Series) -> str:
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in line.points)
    stroke = f'fill="none" stroke="{line.colour}"'
    if line.is_marked:
        circles = "".join(
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4" fill="#fff" '
            f'stroke="{line.colour}" stroke-width="2"><title>step {x:g}: {y:.1%}</title></circle>'
            for x, y in line.points
        )
        return f'<polyline points="{path}" {stroke} stroke-dasharray="4 4"/>{circles}'
    if not line.smooth:
        return f'<polyline points="{path}" {stroke} stroke-width="2"/>'
    smooth = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in line.smooth)
    return (
        f'<polyline points="{path}" {stroke} stroke-opacity="0.25"/>'
        f'<polyline points="{smooth}" {stroke} stroke-width="2.5" stroke-linejoin="round"/>'
    )


def _bar(x: float, y: float, width: float, height: float, colour: str, hint: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" '
        f'fill="{colour}"><title>{html_text(hint)}</title></rect>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html_text(text)}</text>'


def _svg(width: float, height: float, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html_text(title)}" '
        f'style="max-width:{width:g}px">{body}</svg>'
    )
