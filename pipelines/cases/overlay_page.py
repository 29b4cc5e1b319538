"""Drawing of an overlay picture: slices with contours in a grid, a legend, the verdict and its reasons.

Pillow is imported when something is drawn; nothing here knows images or masks.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.vocabulary import RESEARCH_USE
from pipelines.cases.overlay_planes import Slice
from pipelines.cases.quality.verdict import Verdict

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]

WIDTH = 1080
PANELS_HEIGHT = 540
PAD = 14
LINE = 18
BAR_MM = 50.0
MOST_REMARKS = 9
CAPTION = 16
NAME_PIXELS = 180
"""A level is written into its region where it has this many pixels a letter."""

BACKGROUND, TEXT, FAINT = (18, 18, 18), (232, 232, 232), (146, 146, 146)
BADGE = {Verdict.PASS: (46, 160, 67), Verdict.WARN: (214, 140, 0), Verdict.FAIL: (218, 54, 51)}


@dataclass(frozen=True)
class LegendEntry:
    """One region: its colour, its name, what is written into it (or nothing), and its verdict where it has one."""

    colour: Colour
    name: str
    short: str
    verdict: Verdict | None


@dataclass(frozen=True)
class Caption:
    """What stands above the slices."""

    title: str
    about: str
    notice: str
    verdict: Verdict


Remark = tuple[Verdict, str]
"""A reason and how grave it is."""


def draw_page(
    slices: Sequence[Slice], caption: Caption, legend: Sequence[LegendEntry], remarks: Sequence[Remark]
) -> bytes:
    """The whole picture as PNG; region number n of the slices is entry n - 1 of the legend."""
    return _png(_page(caption, _panels(slices, legend), legend, remarks))


def _panels(slices: Sequence[Slice], legend: Sequence[LegendEntry]) -> list[list[Image]]:
    """Rows of panels, all at one scale, which is the largest that fits."""
    rows, scale = _layout(slices)
    return [[_panel(one, scale, legend) for one in row] for row in rows]


def _layout(slices: Sequence[Slice]) -> tuple[list[list[Slice]], float]:
    """The grid that shows them largest, and its pixels per mm."""
    best: tuple[float, int] = (0.0, 1)
    for columns in range(1, len(slices) + 1):
        rows = [slices[n : n + columns] for n in range(0, len(slices), columns)]
        width = max(sum(one.size_mm[1] for one in row) for row in rows)
        height = sum(max(one.size_mm[0] for one in row) for row in rows)
        across = (WIDTH - PAD * (columns + 1)) / width
        down = (PANELS_HEIGHT - (PAD + CAPTION) * (len(rows) - 1)) / height
        best = max(best, (min(across, down), columns))
    return [list(slices[n : n + best[1]]) for n in range(0, len(slices), best[1])], best[0]


def _panel(one: Slice, scale: float, legend: Sequence[LegendEntry]) -> Image:
    from PIL import Image, ImageDraw

    size = (max(1, round(one.size_mm[1] * scale)), max(1, round(one.size_mm[0] * scale)))
    grey = Image.fromarray(one.grey).resize(size, Image.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)
    places: list[tuple[str, tuple[float, float]]] = []
    for number in np.unique(one.regions):
        if number == 0:
            continue
        region, (top, left) = _enlarged(one.regions == number, size)
        pixels[top : top + region.shape[0], left : left + region.shape[1]][_contour(region)] = legend[number - 1].colour
        name = legend[number - 1].short
        if name and np.count_nonzero(region) > NAME_PIXELS * len(name):
            rows, columns = np.nonzero(region)
            places.append((name, (left + float(np.median(columns)), top + float(np.median(rows)))))
    panel = Image.new("RGB", (size[0], size[1] + CAPTION), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    draw.text((size[0] / 2, 0), one.caption, font=_font(11), fill=FAINT, anchor="mt")
    slice_ = Image.fromarray(pixels)
    draw = ImageDraw.Draw(slice_)
    for name, place in places:
        draw.text(place, name, font=_font(12), fill=TEXT, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0))
    _marks(draw, size, one, scale)
    panel.paste(slice_, (0, CAPTION))
    return panel


def _enlarged(drawn: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """What is drawn, at the panel's size (width, height) but only around itself, and where that begins."""
    from PIL import Image

    ends = []
    for axis, pixels in ((0, size[1]), (1, size[0])):
        there = np.flatnonzero(drawn.any(axis=1 - axis))
        step = pixels / drawn.shape[axis]
        ends.append((max(0, int((there[0] - 1) * step)), min(pixels, int(np.ceil((there[-1] + 2) * step))), step))
    (top, bottom, down), (left, right, across) = ends
    box = (left / across, top / down, right / across, bottom / down)
    shade = Image.fromarray(drawn.astype(np.uint8) * 255)
    region = np.asarray(shade.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=box)) >= 128
    return region, (top, left)


def _contour(region: np.ndarray) -> np.ndarray:
    """The region's own outer layer, two pixels wide."""
    inner = region.copy()
    for _ in range(2):
        shrunk = inner.copy()
        shrunk[1:] &= inner[:-1]
        shrunk[:-1] &= inner[1:]
        shrunk[:, 1:] &= inner[:, :-1]
        shrunk[:, :-1] &= inner[:, 1:]
        inner = shrunk
    return region & ~inner


def _marks(draw: Any, size: tuple[int, int], one: Slice, scale: float) -> None:
    """Orientation letters and the bar."""
    width, height = size
    top, bottom, left, right = one.letters
    bar = BAR_MM * scale if BAR_MM * scale < width - 20 else 0.0
    middle = width / 2 if bar + 24 < width / 2 else (bar + 8 + width) / 2  # beside the bar
    ends = (((width / 2, 3), top, "mt"), ((middle, height - 3), bottom, "mb"), ((4, height / 2), left, "lm"))
    for place, letter, anchor in (*ends, ((width - 4, height / 2), right, "rm")):
        draw.text(place, letter, font=_font(14), fill=TEXT, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
    if bar:
        y = height - 12
        draw.line([(8, y), (8 + bar, y)], fill=(0, 0, 0), width=6)
        draw.line([(8, y), (8 + bar, y)], fill=TEXT, width=2)
        draw.text(
            (8, y - 5),
            f"{BAR_MM:.0f} mm",
            font=_font(11),
            fill=TEXT,
            anchor="lb",
            stroke_width=2,
            stroke_fill=(0, 0, 0),
        )


def _page(
    caption: Caption, panels: Sequence[Sequence[Image]], legend: Sequence[LegendEntry], remarks: Sequence[Remark]
) -> Image:
    from PIL import Image, ImageDraw

    columns = 1 if len(legend) <= 6 else 2
    legend_width = 250 * columns
    lines = [
        (verdict, part)
        for verdict, sentence in remarks[:MOST_REMARKS]
        for part in _wrapped(sentence, WIDTH - legend_width - 3 * PAD - 60)
    ]
    rows_height = sum(max(panel.height for panel in row) + PAD for row in panels)
    text_height = max(-(-len(legend) // columns), len(lines) + (len(remarks) > MOST_REMARKS), 1) * LINE
    top = 64
    page = Image.new("RGB", (WIDTH, top + rows_height + text_height + 2 * PAD + 20), BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.rectangle([PAD, PAD, PAD + 74, PAD + 26], fill=BADGE[caption.verdict])
    draw.text((PAD + 37, PAD + 13), caption.verdict.upper(), font=_font(15), fill=(255, 255, 255), anchor="mm")
    draw.text((PAD + 88, PAD + 13), caption.title, font=_font(18), fill=TEXT, anchor="lm")
    if caption.notice:
        draw.text((WIDTH - PAD, PAD + 13), caption.notice, font=_font(13), fill=BADGE[Verdict.WARN], anchor="rm")
    draw.text((PAD, 48), caption.about, font=_font(12), fill=FAINT, anchor="lt")
    y = top + 4
    for row in panels:
        x = (WIDTH - sum(panel.width for panel in row) - PAD * (len(row) - 1)) // 2
        for panel in row:
            page.paste(panel, (x, y))
            x += panel.width + PAD
        y += max(panel.height for panel in row) + PAD
    per_column = -(-len(legend) // columns)
    for n, entry in enumerate(legend):
        x, line = PAD + 250 * (n // per_column), y + LINE * (n % per_column)
        draw.rectangle([x, line + 3, x + 12, line + 13], fill=entry.colour)
        draw.text((x + 20, line), entry.name, font=_font(12), fill=TEXT)
        if entry.verdict is not None and entry.verdict is not Verdict.PASS:
            place = (x + 224, line)
            draw.text(place, entry.verdict.value, font=_font(12), fill=BADGE[entry.verdict], anchor="ra")
    x = legend_width + 2 * PAD
    for n, (verdict, part) in enumerate(lines):
        draw.rectangle([x, y + n * LINE + 2, x + 3, y + n * LINE + 14], fill=BADGE[verdict])
        draw.text((x + 12, y + n * LINE), part, font=_font(12), fill=TEXT)
    if not remarks:
        draw.text((x, y), "nothing to remark", font=_font(12), fill=FAINT)
    if len(remarks) > MOST_REMARKS:
        draw.text(
            (x + 12, y + len(lines) * LINE), f"and {len(remarks) - MOST_REMARKS} more", font=_font(12), fill=FAINT
        )
    draw.text((WIDTH - PAD, page.height - PAD), RESEARCH_USE, font=_font(11), fill=FAINT, anchor="rb")
    return page


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(12).getlength(longer) > width:
            lines.append(f"   {word}")
        else:
            lines[-1] = longer if lines[-1].strip() else lines[-1] + word
    return lines


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    """DejaVu Sans, which comes with matplotlib and has every sign used here; nothing of matplotlib is imported."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec is not None else Path()
    return ImageFont.truetype(str(folder / "mpl-data/fonts/ttf/DejaVuSans.ttf"), size)


def _png(page: Image) -> bytes:
    """A palette of 128 greys and the colours there are: half the levels a screen tells apart, a third of the bytes.

    No metadata, so the bytes follow from the picture alone.
    """
    from PIL import Image

    pixels = np.asarray(page)
    red, green, blue = (pixels[:, :, channel] for channel in range(3))
    indices = red >> 1
    coloured = (red != green) | (green != blue)
    packed = (pixels[coloured].astype(np.uint32) * np.array([65536, 256, 1], np.uint32)).sum(axis=1)
    found, which, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=1).astype(np.int64)
    kept = np.argsort(-counts, kind="stable")[:128]
    nearest = np.abs(colours[:, None] - colours[kept][None]).sum(axis=2).argmin(axis=1) if len(found) else which
    indices[coloured] = 128 + nearest[which]
    greys = np.repeat(np.arange(128) * 255 // 127, 3)
    picture = Image.new("P", page.size)
    picture.frombytes(indices.tobytes())
    picture.putpalette([*greys.tolist(), *colours[kept].ravel().tolist()])
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=2)
    return out.getvalue()
