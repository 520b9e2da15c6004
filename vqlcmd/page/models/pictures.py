"""Images as the browser shows them, and as files to download.

Shapes: n images of S x S pixels, 3 channels, uint8.
"""

import base64
import html
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

SMALL = 128
"""In pixels. Images with a smaller side are shown enlarged, with hard edges."""
TILE, MARGIN = 64, 2
"""The side of an image in a montage, and the white margin around it, in pixels."""
WIDEST = 1024
"""The largest side of an animation's images, in pixels."""
FIRST, LAST, BETWEEN = 900, 2500, 180
"""How long the first, the last and the other frames of an animation are shown, in milliseconds."""


def pillow(image: Tensor) -> Image.Image:
    """The image (3, H, W) uint8 as one of Pillow's."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def enlarged(image: Tensor, side: int) -> Image.Image:
    """The image (3, S, S) enlarged to at least `side` pixels a side, by a whole factor, without smoothing."""
    factor = max(-(-side // image.shape[1]), 1)
    return pillow(image.repeat_interleave(factor, 1).repeat_interleave(factor, 2))


def montage(images: Tensor, columns: int) -> Image.Image:
    """Images (n, 3, S, S) row by row on white, small ones enlarged towards TILE pixels."""
    columns = min(columns, len(images))
    factor = max(TILE // images.shape[2], 1)
    large = F.pad(images.repeat_interleave(factor, 2).repeat_interleave(factor, 3), (MARGIN,) * 4, value=255)
    large = F.pad(large, (0, 0, 0, 0, 0, 0, 0, -len(large) % columns), value=255)
    rows_columns = large.unflatten(0, (-1, columns))
    return pillow(rows_columns.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2))


def animation(frames: Sequence[tuple[float, Tensor]], columns: int, path: Path) -> Path:
    """Writes frames (t, images) as an animated WebP with t below the images; returns the path."""
    pages = []
    for t, images in frames:
        picture = montage(images, columns)
        picture.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
        page = Image.new("RGB", (picture.width, picture.height + 26), "white")
        page.paste(picture)
        pen = ImageDraw.Draw(page)
        pen.rectangle((2, picture.height + 2, 2 + (picture.width - 5) * (1 - t), picture.height + 5), "#4f46e5")
        words = f"t = {t:.2f}" if t else "the samples"
        pen.text((4, picture.height + 8), words, "#475569", ImageFont.load_default(13))
        pages.append(page)
    durations = [FIRST, *[BETWEEN] * (len(pages) - 2), LAST][-len(pages) :]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=durations, loop=0, lossless=True, method=0)
    return path


def png(image: Tensor) -> bytes:
    """The image (3, H, W) uint8 as the bytes of a PNG."""
    buffer = io.BytesIO()
    pillow(image).save(buffer, format="PNG")
    return buffer.getvalue()


def data_url(image: Tensor) -> str:
    """The image (3, H, W) uint8 as a URL that contains it."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def gallery(images: Tensor, captions: Sequence[str] = (), columns: int = 8) -> str:
    """Images as HTML, `columns` in a row, with their captions below."""
    words = [html.escape(word) for word in captions] or [""] * len(images)
    figures = [
        f'<figure><img src="{data_url(image)}" alt="{word or number}"><figcaption>{word}</figcaption></figure>'
        for number, (image, word) in enumerate(zip(images, words, strict=True))
    ]
    style = f"--columns: {min(columns, len(images))}"
    return f'<div class="gallery {_kind(images)}" style="{style}">{"".join(figures)}</div>'


def archive(images: Tensor, names: Sequence[str], path: Path) -> Path:
    """Writes images as NUMBER-NAME.png into a zip file; returns the path."""
    with zipfile.ZipFile(path, "w") as file:
        for number, (image, name) in enumerate(zip(images, names, strict=True)):
            # The name of a class may contain anything.
            ending = re.sub(r"[^\w.-]+", "_", name)
            file.writestr(f"{number:03}{f'-{ending}' if ending else ''}.png", png(image))
    return path


def comparison(rows: Sequence[tuple[str, str, Tensor]]) -> str:
    """Rows of a label, a note and images, as HTML."""
    parts = []
    for label, note, images in rows:
        shown = "".join(f'<img src="{data_url(image)}" alt="{number}">' for number, image in enumerate(images))
        parts.append(
            f'<div class="what"><b>{html.escape(label)}</b><span>{html.escape(note)}</span></div>'
            f'<div class="images {_kind(images)}" style="--columns: {len(images)}">{shown}</div>'
        )
    return f'<div class="comparison">{"".join(parts)}</div>'


def _kind(images: Tensor) -> str:
    return "small" if images.shape[2] < SMALL else "large"
