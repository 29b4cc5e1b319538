"""One picture of a series and what is drawn on it, for a radiologist to glance at.

Slices in true proportions with the masks' contours, a legend, the verdict with its reasons, letters of
orientation and a bar of 50 mm; no patient's id and no date. The same input gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from feature_store.vocabulary import ALL, RESEARCH_USE, STRUCTURES, UNKNOWN, Side, StructureKind
from pipelines.cases.overlay_planes import Slice, cut, grey_window
from pipelines.cases.quality.body_axes import BodyAxes
from pipelines.cases.quality.order import RANK
from pipelines.cases.quality.series import is_ct
from pipelines.cases.quality.verdict import SEVERITY, Quality, Verdict, gravest
from pipelines.cases.rois import Roi

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 1080
PANELS_HEIGHT = 540
PAD = 14
LINE = 18
BAR_MM = 50.0
MOST_REASONS = 9
CAPTION = 16
NAME_PIXELS = 180
"""A level is written into its region where it has this many pixels a letter."""

BACKGROUND, TEXT, FAINT = (18, 18, 18), (232, 232, 232), (146, 146, 146)
BADGE = {Verdict.PASS: (46, 160, 67), Verdict.WARN: (214, 140, 0), Verdict.FAIL: (218, 54, 51)}
BY_LEVEL = (
    (255, 150, 79), (6, 214, 160), (255, 90, 110), (76, 201, 240), (255, 209, 102), (179, 136, 255),
    (198, 255, 94), (240, 100, 240), (64, 160, 255), (250, 240, 90), (150, 255, 230),
)  # fmt: skip
"""Bodies and discs in turn from head to foot, so that neighbours never look alike and L3 is always the same."""
BY_SIDE = {
    "psoas_major": ((76, 201, 240), (255, 107, 139)),
    "iliopsoas": ((76, 201, 240), (255, 107, 139)),
    "quadratus_lumborum": ((198, 255, 94), (255, 209, 102)),
    "paraspinal_muscle": ((64, 160, 255), (255, 150, 79)),
}
"""Left, right."""


@dataclass(frozen=True)
class DrawnMask:
    """One label map on the image's grid, its ROIs, and their verdicts in the same order (or none)."""

    mask: sitk.Image
    rois: Sequence[Roi]
    qualities: Sequence[Quality] = field(default_factory=tuple)


def draw_overlay(
    image: sitk.Image,
    masks: Sequence[DrawnMask],
    sequence: str,
    segmentation: str,
    series: Quality,
    notice: str = "",
) -> bytes:
    """PNG of one series with one segmentation, which may come as several masks. ``notice`` goes into the title."""
    axes = BodyAxes.of(image)
    voxels = axes.view(sitk.GetArrayViewFromImage(image))
    regions, names = _regions(masks, axes)
    structures = {name.name.structure for name in names}
    bones = tuple(n for n, roi in enumerate(names, 1) if STRUCTURES[roi.name.structure] is not StructureKind.MUSCLE)
    window = grey_window(voxels, is_ct(sequence), structures)
    slices = cut(voxels, regions, axes, window, bones)
    verdicts = {roi.name: quality for mask in masks for roi, quality in zip(mask.rois, mask.qualities, strict=False)}
    worst = gravest([series.verdict, *(quality.verdict for quality in verdicts.values())])

    title = f"{sequence} · {segmentation}"
    unit = " HU" if is_ct(sequence) else ""
    about = (
        f"{' × '.join(str(n) for n in image.GetSize())} voxels of "
        f"{' × '.join(f'{mm:.2f}' for mm in image.GetSpacing())} mm · window {window[0]:.0f} to {window[1]:.0f}{unit}"
    )
    if axes.tilt_deg > 1.0:
        about += f" · tilted {axes.tilt_deg:.0f}°, letters are the nearest"
    colours = [_colour(roi) for roi in names]
    panels = _panels(slices, colours, [_short(roi) for roi in names])
    legend = [(colour, _label(roi), verdicts.get(roi.name)) for roi, colour in zip(names, colours, strict=True)]
    reasons = _reasons(series, verdicts)
    return _png(_page(title, notice, about, worst, panels, legend, reasons))


# --- what is shown -----------------------------------------------------------------------------
def _regions(masks: Sequence[DrawnMask], axes: BodyAxes) -> tuple[np.ndarray, list[Roi]]:
    """One array of region numbers (in body order) for all masks, and the ROI of each number from 1.

    Unions are left out where their parts are there. Of masks that overlap the later one is on top.
    """
    regions = np.zeros(axes.size, dtype=np.uint8)
    names: list[Roi] = []
    for drawn in masks:
        parts = {roi.name.structure for roi in drawn.rois if roi.name.level != ALL}
        shown = [roi for roi in drawn.rois if roi.name.level != ALL or roi.name.structure not in parts]
        shown = sorted(shown, key=lambda roi: (roi.name.structure, RANK.get(roi.name.level, -1), roi.name))
        labels = axes.view(sitk.GetArrayViewFromImage(drawn.mask))
        # one more entry, which is 0: what nobody declared lies past the declared numbers
        lookup = np.zeros(max((max(roi.labels) for roi in shown), default=0) + 2, dtype=np.uint8)
        for roi in shown[: 255 - len(names)]:
            names.append(roi)
            lookup[list(roi.labels)] = len(names)
        for plane, drawn_plane in zip(regions, labels, strict=True):  # a plane at a time: an index takes 8 bytes
            numbers = lookup[np.minimum(drawn_plane, lookup.size - 1)]
            np.copyto(plane, numbers, where=numbers > 0)
    return regions, names


def _colour(roi: Roi) -> tuple[int, int, int]:
    if roi.name.level in RANK:
        return BY_LEVEL[RANK[roi.name.level] % len(BY_LEVEL)]
    left, right = BY_SIDE.get(roi.name.structure, ((255, 209, 102), (255, 209, 102)))
    if roi.name.structure == "intervertebral_disc":
        return BY_LEVEL[1]
    return right if roi.name.side == Side.RIGHT else left


def _label(roi: Roi) -> str:
    parts = [roi.name.structure.replace("_", " ")]
    parts += [roi.name.level] if roi.name.level != UNKNOWN else []
    parts += [str(roi.name.side)] if roi.name.side != Side.BOTH else []
    return " ".join(parts)


def _short(roi: Roi) -> str:
    return roi.name.level if roi.name.level in RANK else ""


def _reasons(series: Quality, verdicts: Any) -> list[tuple[Verdict, str, str]]:
    """(verdict, of what, sentence), gravest first; the same code of several ROIs is said once."""
    found = [(reason.verdict, "series", reason.line()) for reason in series.reasons]
    of_rois = [
        (
            reason.code,
            reason.verdict,
            " ".join(part for part in (name.structure, name.level, _side(name)) if part),
            reason,
        )
        for name, quality in verdicts.items()
        for reason in quality.reasons
    ]
    of_rois.sort(key=lambda row: (row[0], row[1], row[2]))
    for (_, verdict), group in groupby(of_rois, key=lambda row: (row[0], row[1])):
        rows = list(group)
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        found.append((verdict, rows[0][2].replace("_", " ") + more, rows[0][3].line()))
    return sorted(found, key=lambda row: -SEVERITY[row[0]])


def _side(name: Any) -> str:
    return "" if name.side == Side.BOTH else str(name.side)


# --- drawing -----------------------------------------------------------------------------------
def _panels(
    slices: Sequence[Slice], colours: Sequence[tuple[int, int, int]], names: Sequence[str]
) -> list[list[Image]]:
    """Rows of panels, all at one scale, which is the largest that fits."""
    rows, scale = _layout(slices)
    return [[_panel(one, scale, colours, names) for one in row] for row in rows]


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


def _panel(one: Slice, scale: float, colours: Sequence[tuple[int, int, int]], names: Sequence[str]) -> Image:
    from PIL import Image, ImageDraw

    size = (max(1, round(one.size_mm[1] * scale)), max(1, round(one.size_mm[0] * scale)))
    grey = Image.fromarray(one.grey).resize(size, Image.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)
    places: list[tuple[str, tuple[float, float]]] = []
    for number in np.unique(one.regions):
        if number == 0:
            continue
        region, (top, left) = _enlarged(one.regions == number, size)
        pixels[top : top + region.shape[0], left : left + region.shape[1]][_contour(region)] = colours[number - 1]
        name = names[number - 1]
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
    title: str,
    notice: str,
    about: str,
    worst: Verdict,
    panels: Sequence[Sequence[Image]],
    legend: Sequence[tuple[tuple[int, int, int], str, Quality | None]],
    reasons: Sequence[tuple[Verdict, str, str]],
) -> Image:
    from PIL import Image, ImageDraw

    columns = 1 if len(legend) <= 6 else 2
    legend_width = 250 * columns
    lines = [
        (verdict, part)
        for verdict, of, sentence in reasons[:MOST_REASONS]
        for part in _wrapped(f"{of}: {sentence}", WIDTH - legend_width - 3 * PAD - 60)
    ]
    rows_height = sum(max(panel.height for panel in row) + PAD for row in panels)
    text_height = max(-(-len(legend) // columns), len(lines) + (len(reasons) > MOST_REASONS), 1) * LINE
    top = 64
    page = Image.new("RGB", (WIDTH, top + rows_height + text_height + 2 * PAD + 20), BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.rectangle([PAD, PAD, PAD + 74, PAD + 26], fill=BADGE[worst])
    draw.text((PAD + 37, PAD + 13), worst.upper(), font=_font(15), fill=(255, 255, 255), anchor="mm")
    draw.text((PAD + 88, PAD + 13), title, font=_font(18), fill=TEXT, anchor="lm")
    if notice:
        draw.text((WIDTH - PAD, PAD + 13), notice, font=_font(13), fill=BADGE[Verdict.WARN], anchor="rm")
    draw.text((PAD, 48), about, font=_font(12), fill=FAINT, anchor="lt")
    y = top + 4
    for row in panels:
        x = (WIDTH - sum(panel.width for panel in row) - PAD * (len(row) - 1)) // 2
        for panel in row:
            page.paste(panel, (x, y))
            x += panel.width + PAD
        y += max(panel.height for panel in row) + PAD
    per_column = -(-len(legend) // columns)
    for n, (colour, name, quality) in enumerate(legend):
        x, line = PAD + 250 * (n // per_column), y + LINE * (n % per_column)
        draw.rectangle([x, line + 3, x + 12, line + 13], fill=colour)
        draw.text((x + 20, line), name, font=_font(12), fill=TEXT)
        if quality is not None and quality.verdict is not Verdict.PASS:
            place = (x + 224, line)
            draw.text(place, quality.verdict.value, font=_font(12), fill=BADGE[quality.verdict], anchor="ra")
    x = legend_width + 2 * PAD
    for n, (verdict, part) in enumerate(lines):
        draw.rectangle([x, y + n * LINE + 2, x + 3, y + n * LINE + 14], fill=BADGE[verdict])
        draw.text((x + 12, y + n * LINE), part, font=_font(12), fill=TEXT)
    if not reasons:
        draw.text((x, y), "nothing to remark", font=_font(12), fill=FAINT)
    if len(reasons) > MOST_REASONS:
        draw.text(
            (x + 12, y + len(lines) * LINE), f"and {len(reasons) - MOST_REASONS} more", font=_font(12), fill=FAINT
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
