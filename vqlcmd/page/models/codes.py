"""What codes look like, and which are near to each other.

Shapes: K codes, D numbers a code, P x P pixels of a patch, the part of an image that one token stands for.
"""

import torch
from PIL import Image
from torch import Tensor

from vqlcmd.generator import Generator
from vqlcmd.page.chart import CELL, MOST_PATCHES, PATCH, codes_in_a_row
from vqlcmd.page.models import drawing, pictures
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer import codebook_table

BATCH = 64
"""Images that are decoded at once."""


def tables(model: Generator) -> dict[str, Tensor]:
    """Tables in which codes have neighbours: the model's embeddings (K, D) and, if it has vectors, the codebook."""
    found = {"embeddings": model.method.table.cpu(), "codebook": codebook_table(model.tokenizer)}
    return {name: table_KD.float() for name, table_KD in found.items() if table_KD.shape[1]}


def nearest(table_KD: Tensor, code: int, count: int) -> tuple[list[int], list[float]]:
    """The `count` codes nearest to `code`, itself first, and their distances. ConfigError if there is no such code."""
    if not 0 <= code < len(table_KD):
        raise ConfigError(f"code {code} does not exist: choose 0 to {len(table_KD) - 1}")
    # Not by dot products, which round: the code itself must have distance 0.
    far = (table_KD - table_KD[code]).norm(dim=1)
    far[code] = -1
    found = far.topk(min(count, len(table_KD)), largest=False)
    return found.indices.tolist(), found.values.clamp_min(0).tolist()


@torch.no_grad()
def patches(model: Generator, codes: list[int]) -> Tensor:
    """What codes look like, uint8 (n, 3, P, P): the middle patch of an image that consists of one code alone."""
    rows, columns = model.grid
    found = []
    for part in torch.tensor(codes).split(BATCH):
        images = drawing.picture(model, part[:, None].expand(-1, rows * columns))
        height, width = images.shape[2] // rows, images.shape[3] // columns
        top, left = rows // 2 * height, columns // 2 * width
        found.append(images[:, :, top : top + height, left : left + width])
    return torch.cat(found)


def chart(model: Generator) -> Image.Image:
    """A picture of all codes, MOST_PATCHES at most, row by row, with CELL pixels from one to the next."""
    count = min(model.tokenizer.codes, MOST_PATCHES)
    looks = patches(model, list(range(count)))
    size = (PATCH, PATCH)
    large = [pictures.pillow(look).resize(size, Image.Resampling.NEAREST) for look in looks]
    in_a_row = codes_in_a_row(count)
    page = Image.new("RGB", (in_a_row * CELL, -(-count // in_a_row) * CELL), "white")
    for number, look in enumerate(large):
        row, column = divmod(number, in_a_row)
        page.paste(look, (column * CELL, row * CELL))
    return page
