"""Compressed size of a text in bits, alone and after another text: what a model's likelihood is compared with.

A model has to beat the size after the text that it was trained on. This is the compressed size of both together minus
that of the training text, and it is meaningful only for a compressor that remembers so much: xz keeps all of it in its
dictionary here (memory: 12 times the bytes), PPMd what fits into its memory. zlib looks back 32 kB, and bz2 900 kB.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from vqlcmd.runtime.errors import ConfigError

PPMD_ORDER, PPMD_MEMORY = 8, 2**29
"""PPMd's bytes of context, and of memory: 512 MB."""
SMALLEST_DICTIONARY = 2**16


@dataclass(frozen=True)
class Compressor:
    """The compression function, and whether the compressor remembers a training text of megabytes."""

    compress: Callable[[bytes], bytes]
    remembers: bool


def _xz(data: bytes) -> bytes:
    dictionary = max(len(data), SMALLEST_DICTIONARY)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def _ppmd(data: bytes) -> bytes:
    try:
        import pyppmd  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "reference.compressors has ppmd, which needs pyppmd: pip install 'vqlcmd[text]', or take it out"
        ) from None
    return pyppmd.compress(data, max_order=PPMD_ORDER, mem_size=PPMD_MEMORY)


COMPRESSORS = {
    "zlib": Compressor(lambda data: zlib.compress(data, 9), remembers=False),
    "bz2": Compressor(lambda data: bz2.compress(data, 9), remembers=False),
    "xz": Compressor(_xz, remembers=True),
    "ppmd": Compressor(_ppmd, remembers=True),
}
"""Valid values of `reference.compressors` in params.yaml; each at its strongest setting."""


def bits(name: str, text: str, after: str = "") -> int:
    """Compressed size of `text` in bits, after the text `after` if there is one."""
    compress = COMPRESSORS[name].compress
    before = len(compress(after.encode())) if after else 0
    return 8 * (len(compress((after + text).encode())) - before)
