"""The handwritten digits that come with scikit-learn."""

import numpy as np
from PIL import Image

from vqlcmd.images.sources.listing import Entry, no_classes, short_digest
from vqlcmd.runtime.errors import DataError

DIGITS = "sklearn-digits"


class Digits:
    """The 1,797 handwritten 8x8 digits that come with scikit-learn, their 17 grey levels spread over 0..255."""

    def __init__(self, classes: bool = True) -> None:
        """Raises DataError if scikit-learn is not installed."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError("the digits need scikit-learn; run `pip install 'vqlcmd[demo]'`") from None
        pixels, labels = load_digits(return_X_y=True)
        self.pixels = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        numbers = np.asarray(labels, dtype=np.int64)
        self.classes, self.labels = (tuple("0123456789"), numbers) if classes else no_classes(len(numbers))
        self.left_out: dict[str, int] = {}
        contents = self.pixels.tobytes()
        digest = short_digest([contents, numbers.astype(np.uint8).tobytes()])
        self.entries = (Entry(path=".", images=len(numbers), bytes=len(contents), digest=digest),)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        return f"digit {i}"

    def open(self, i: int) -> Image.Image:
        return Image.fromarray(self.pixels[i])

    def contents(self, i: int) -> bytes:
        return self.pixels[i].tobytes()
