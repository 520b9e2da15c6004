"""VQ-LCMD: latent consistency-matching diffusion over learned embeddings of VQ tokens (arXiv 2410.14758)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqlcmd.generator import Generator
    from vqlcmd.text_generator import TextGenerator

__version__ = "0.1.0"


def load(folder: str = "data", **options: Any) -> "Generator":
    """The trained generator in `folder`: `vqlcmd.load().sample([3] * 16)` gives uint8 images (16, 3, S, S).

    `folder` may be "hf://USER/NAME", a model that `vqlcmd publish` has put on the Hugging Face hub.
    """
    # Imported here, so that `import vqlcmd` and --help on the command line do not wait for PyTorch.
    from vqlcmd.generator import load

    return load(folder, **options)


def load_text(folder: str = "data", **options: Any) -> "TextGenerator":
    """The trained generator of text in `folder`: `vqlcmd.load_text().infill("the quick ____ fox")`."""
    from vqlcmd.text_generator import load_text

    return load_text(folder, **options)
