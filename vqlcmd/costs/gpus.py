"""GPUs for `vqlcmd plan --gpu`, which need not be in this machine: memory and dense peak rates that NVIDIA publishes.

Data sheets print tensor-core rates with 2:4 sparsity; the rates here are half of those. The rate for float32 is that of
the CUDA cores, since PyTorch multiplies float32 matrices without TF32 by default. TF32 and bf16 accumulate in float32.
"""

from dataclasses import dataclass

from vqlcmd.runtime.errors import ConfigError

TERA = 1e12


@dataclass(frozen=True)
class Gpu:
    """Memory in bytes, rates in FLOP/s, and the source of the numbers."""

    memory: float
    float32: float
    tf32: float
    bf16: float
    source: str


GPUS = {
    "a100-40": Gpu(40e9, 19.5 * TERA, 156 * TERA, 312 * TERA, "NVIDIA A100 Tensor Core GPU data sheet, 40 GB"),
    "a100": Gpu(80e9, 19.5 * TERA, 156 * TERA, 312 * TERA, "NVIDIA A100 Tensor Core GPU data sheet, 80 GB"),
    "h100": Gpu(80e9, 67 * TERA, 494.7 * TERA, 989.5 * TERA, "NVIDIA H100 Tensor Core GPU data sheet, SXM"),
    "h200": Gpu(141e9, 67 * TERA, 494.7 * TERA, 989.5 * TERA, "NVIDIA H200 Tensor Core GPU data sheet, SXM"),
    "l4": Gpu(24e9, 30.3 * TERA, 60 * TERA, 121 * TERA, "NVIDIA L4 Tensor Core GPU data sheet"),
    "l40s": Gpu(48e9, 91.6 * TERA, 183 * TERA, 362 * TERA, "NVIDIA L40S data sheet"),
    "3090": Gpu(24e9, 35.6 * TERA, 35.6 * TERA, 71 * TERA, "NVIDIA Ampere GA102 architecture white paper"),
    "4090": Gpu(24e9, 82.6 * TERA, 82.6 * TERA, 165.2 * TERA, "NVIDIA Ada GPU architecture white paper"),
}


def find(name: str) -> Gpu:
    """The GPU of that name. Raises ConfigError, which lists the known names, if there is none."""
    if name.lower() not in GPUS:
        raise ConfigError(f"--gpu {name[:40]!r} is not known here: choose one of {', '.join(GPUS)}")
    return GPUS[name.lower()]
