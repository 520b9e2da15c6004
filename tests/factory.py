"""Tiny parameters and methods for tests: the demo's with small sizes, and whatever a test overrides."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vqlcmd import methods
from vqlcmd.params import ModelParams, Params, Sampling, Train, load_params

ROOT = Path(__file__).parent.parent
CODES, TOKENS, DIM = 8, 4, 6
METHODS = tuple(methods.METHODS)
"""Every one that params.yaml can name: a new one is tested by being listed there."""

VARIANTS: dict[str, dict[str, Any]] = {
    "lcmd, self-conditioning": {"method": "lcmd", "self_conditioning": 0.5},
    "lcmd, warped times": {"method": "lcmd", "weighting": "warped"},
    "lcmd, likelihood": {"method": "lcmd", "likelihood": True},
    "flow_matching, uniform": {"method": "flow_matching", "discrete": {"source": "uniform"}},
}
"""Methods with a parameter that changes what is computed: they keep the same contracts."""

Module = TypeVar("Module", bound=nn.Module)

# Everything the tests lean on, so that an edit of the preset does not change what they state.
TINY: dict[str, Any] = {
    "seed": 0,
    "s": 0.0,
    "lambda_rec": 1.0,
    "lambda_diff": 0.2,
    "lambda_cm": 1.0,
    "lambda_ce": 0.5,
    "weighting": "simple",
    "consistency_step": "model",
    "consistency_time": "uniform",
    "consistency_gradient": "full",
    "drop_reconstruction": True,
    "likelihood": False,
    "self_conditioning": 0.0,
    "drop": 0.2,
    "dropping": "fixed",
    "embedding": "learned",
    "embedding_dim": DIM,
    "train_steps": 10,
    "schedule": {"name": "cosine", "log_snr_min": -12.0, "log_snr_max": 6.0},
    "discrete": {
        "timesteps": 20,
        "source": "mask",
        "schedule": {
            "d3pm": "cosine",
            "vq_diffusion": "released",
            "mdlm": "log_linear",
            "flow_matching": "linear",
        },
    },
    "network": {"layers": 1, "heads": 2, "width": 16, "dropout": 0.0, "positions": "sinusoidal"},
    "train": {
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup": 2,
        "final_lr_ratio": 0.1,
        "weight_decay": 0.01,
        "betas": [0.9, 0.99],
        "clip": 1.0,
        "ema": 0.9,
        "snapshots": [],
        "keep_best": True,
        "init_std": 1.0,
        "use_classes": True,
        "class_drop": 0.1,
        "precision": "float32",
        "log_every": 4,
        "sample_every": 0,
        "table_gradients": False,
        "save_every": 5,
        "logger": "none",
    },
    "distill": {"teacher": None, "sha256": None, "steps": 16},
}


def params(**overrides: Any) -> Params:
    """All parameters of the demo, tiny; a section's override is a dict of the keys that change."""
    values = load_params(ROOT / "presets" / "digits.yaml").model_dump()
    return Params.model_validate(merge(merge(values, TINY), overrides))


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes` laid over it, section by section."""
    laid = {key: merge(values.get(key, {}), new) if isinstance(new, dict) else new for key, new in changes.items()}
    return values | laid


def model_params(**overrides: Any) -> ModelParams:
    """The part of them that shapes a model."""
    return params(**overrides).model_part()


def sampling(
    steps: int = 5, sampler: str = "ancestral", guidance: float = 0.0, precision: str = "float32", **own: Any
) -> Sampling:
    """A short way to say how; every method's own knobs as in params.yaml, so that any method can read its own."""
    knobs = params().sample.model_dump(exclude={"count", "batch_size", "precision"})
    return Sampling(
        steps,
        sampler,
        guidance,
        {key: own.get(key, v) for each in knobs.values() for key, v in each.items()},
        precision,
    )


def train_settings(**overrides: Any) -> Train:
    """The section `train`."""
    return params(train=overrides).train


def build(*, tokens: int = TOKENS, codes: int = CODES, classes: int = 0, seed: int = 0, **overrides: Any) -> Any:
    """A method with fresh weights from `seed`; the global random state stays as it was.

    Any: methods share an interface and no class.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return methods.build(model_params(**overrides), codebook(codes), tokens, classes)


def changes_of(name: str) -> dict[str, Any]:
    """The parameters of a method, or of one of VARIANTS."""
    return VARIANTS.get(name, {"method": name})


def made(name: str, **overrides: Any) -> Any:
    """A method, or one of VARIANTS, with 3 classes, in eval mode.

    Away from its initial weights, so that classes and times count.
    """
    changes = merge(changes_of(name), overrides)
    return perturb(build(**{"classes": 3, **changes})).eval()


def codebook(codes: int = CODES, dim: int = DIM) -> Tensor:
    """A VQGAN's table (K, D) that is neither centred nor of unit variance."""
    return normal(codes, dim, seed=3) * 3 + 1


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Fixed standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def integers(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Fixed integers in [0, high)."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def perturb(module: Module, scale: float = 0.3, seed: int = 0) -> Module:
    """The same module away from its initial weights, where zeroed modulations hide what they modulate."""
    # A weighting that learns comes last, so that the network is the one without it.
    named = sorted(module.named_parameters(), key=lambda each: each[0].startswith("weighting"))
    for number, (_, parameter) in enumerate(named):
        parameter += scale * normal(*parameter.shape, seed=seed * 1000 + number)
    return module
