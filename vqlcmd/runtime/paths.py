"""Where everything is, relative to the repository's root, in which every stage runs."""

import os
import shutil
from pathlib import Path

from vqlcmd.runtime.errors import ConfigError, shown_repr

MANIFESTS = Path("data/manifests")
VQGAN = Path("data/vqgan.safetensors")
VOCABULARY = Path("data/vocabulary.json")
TOKENIZERS = {"images": VQGAN, "text": VOCABULARY}
"""{domain: the file of what encodes its tokens and decodes them}."""
TOKENS = Path("data/tokens")
METHOD = Path("data/method.txt")
MODEL = Path("data/model/model.safetensors")
SAMPLES = Path("data/samples")
REFERENCE = Path("data/reference")
LANGUAGE_MODEL = REFERENCE / "language_model.safetensors"
"""For text: the model by which the perplexity of samples is measured."""
PAIRS = Path("data/pairs.safetensors")
METRICS = Path("metrics")
ORIGIN = METRICS / "origin"
"""STAGE.json here says what the numbers and pictures of a stage were made from."""
BYTES_OF_A_WORKER = 3 * 16 * 3 * 256**2
"""In /dev/shm: three chunks of images, one in use and two that wait, of vqlcmd.images.loader.CHUNK_BYTES each."""
PICTURE_MB = 512
"""128 million pixels of 8 bits: what today's largest cameras take in one shot."""


def weights(name: str) -> Path:
    """The file of the weights called `name`, as `weights` in params.yaml names them."""
    return MODEL.parent / f"{name}.safetensors"


def images_root() -> Path | None:
    """The folder that holds the data sets' folders: $VQLCMD_IMAGES, absolute; None if it is not set.

    A relative path starts at the main checkout, where the user typed it, not at an experiment's copy.
    """
    return _root("VQLCMD_IMAGES")


def text_root() -> Path | None:
    """The folder that holds the folders of text files: $VQLCMD_TEXT, as in `images_root`."""
    return _root("VQLCMD_TEXT")


def _root(variable: str) -> Path | None:
    root = os.environ.get(variable)
    return (main_checkout() / Path(root).expanduser()).absolute() if root else None


def main_checkout() -> Path:
    """The checkout in which DVC was called; a stage of an experiment may run in a copy of it."""
    return Path(os.environ.get("DVC_ROOT") or ".").absolute()


def experiment_remedy(path: Path) -> str:
    """What else to do about a missing file if this is an experiment's copy of the checkout; "" if it is not."""
    if path.is_absolute() or main_checkout().resolve() == Path.cwd().resolve():
        return ""
    return (
        f"; this run is an experiment in a copy of {main_checkout()}, which holds what Git has and nothing else:"
        f" `git add {path} && git commit` there first, or give the file's full path"
    )


def picture_memory() -> int:
    """Bytes that one decoded picture may take: $VQLCMD_PICTURE_MB, else 512 MB."""
    megabytes = _whole_number("VQLCMD_PICTURE_MB", "the megabytes that a decoded picture may take")
    return (PICTURE_MB if megabytes is None else megabytes) * 10**6


def cache() -> Path:
    """Where downloaded tokenizers are kept: $VQLCMD_CACHE, else ~/.cache/vqlcmd."""
    return Path(os.environ.get("VQLCMD_CACHE") or "~/.cache/vqlcmd").expanduser()


def compiled_code() -> Path:
    """Where compiled networks are kept for later processes: below `cache`, absolute."""
    return cache().absolute() / "compiled"


def workers() -> int:
    """Processes that decode images, beside the one that uses them: $VQLCMD_WORKERS, else up to 8; none on few cores.

    The processes of a stage on one machine share its cores, and /dev/shm, through which images are passed.
    """
    text = os.environ.get("VQLCMD_WORKERS")
    if text is None:
        here = _processes_here()
        cores = (os.cpu_count() or 1) // here
        shared = Path("/dev/shm")
        room = shutil.disk_usage(shared).free // here // BYTES_OF_A_WORKER if shared.is_dir() else 8
        return min(8, cores - 2, room) if cores > 3 else 0
    return whole_number("VQLCMD_WORKERS", text, 0, "the processes that decode images")


def token_memory() -> int:
    """Bytes for training tokens: $VQLCMD_TOKEN_MB, else half of the free memory, shared by the processes.

    On a GPU, at most a quarter of its free memory.
    """
    megabytes = _whole_number("VQLCMD_TOKEN_MB", "the megabytes that training tokens may take")
    if megabytes is not None:
        return megabytes * 10**6
    import psutil
    import torch

    free = psutil.virtual_memory().available // 2 // _processes_here()
    return min(free, torch.cuda.mem_get_info()[0] // 4) if torch.cuda.is_available() else free


def micro_batch() -> int | None:
    """Images of a training batch that a process computes at once: $VQLCMD_MICRO_BATCH; None for all of its share."""
    return _whole_number("VQLCMD_MICRO_BATCH", "the images that a process computes together in training")


def compiles() -> bool:
    """Whether the network is compiled: $VQLCMD_COMPILE is 1. Raises ConfigError if it is neither 0 nor 1."""
    text = os.environ.get("VQLCMD_COMPILE", "0")
    if text not in ("0", "1"):
        raise ConfigError(f"VQLCMD_COMPILE is {text!r}, but must be 1 or 0: whether the network is compiled")
    return text == "1"


def _processes_here() -> int:
    """Processes of this stage on this machine, from torchrun's variable, which our own launcher sets too."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _whole_number(variable: str, meaning: str) -> int | None:
    text = os.environ.get(variable)
    return None if text is None else whole_number(variable, text, 1, meaning)


def whole_number(variable: str, text: str, least: int, meaning: str) -> int:
    """The number in an environment variable.

    ConfigError if it is not a whole number from `least`, or exceeds 9 digits.
    """
    # isdigit() alone accepts a superscript two, which int() does not.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise ConfigError(f"{variable} is {shown_repr(text)}, but must be a whole number from {least}: {meaning}")
    return int(text)


def proxy_weights(features: str) -> Path | None:
    """The weights that the reference stage trained, if the extractor is the proxy classifier; None for all others."""
    return REFERENCE / "proxy.safetensors" if features == "proxy" else None
