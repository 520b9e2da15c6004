"""What a trained tokenizer's file says of its training: the parts that were used."""

from typing import Any

from vqlcmd.params.vqgan import VqganFit

UNSAID: dict[str, Any] = {
    "l1": 0,
    "l2": 1,
    "perceptual": 0,
    "perceptual_network": "none",
    "adversarial": 0,
    "codebook": 0,
    "smoothing": 0.98,
    "restart": 0.05,
    "unit_codes": False,
    "continuous_fraction": 0.15,
    "crop_margin": 0,
    "flip": False,
    "use_heldout": True,
    "ema": 0,
    "precision": "float32",
}
"""Not listed where they are so: those of an autoencoder with k-means and moving averages, so that its files stay."""
RUNNING = ("limit", "log_every", "save_every")
"""How a run is kept and watched."""


def described(settings: VqganFit) -> dict[str, Any]:
    """{key: value} of a fit, of the discriminator only where there was one."""
    said = settings.model_dump(exclude={*RUNNING, *(() if settings.adversarial else ("discriminator",))})
    return {key: value for key, value in said.items() if key not in UNSAID or value != UNSAID[key]}
