"""The training settings that a trained tokenizer's file records."""

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
"""Settings that are not recorded if they have these values, which are those of an autoencoder with k-means and moving
averages: its files stay the same when settings are added."""
RUNNING = ("limit", "log_every", "save_every")
"""Settings of how a run is stored and logged, which are not recorded."""


def described(settings: VqganFit) -> dict[str, Any]:
    """{key: value} of a fit's settings to record; those of the discriminator only if there is one."""
    said = settings.model_dump(exclude={*RUNNING, *(() if settings.adversarial else ("discriminator",))})
    return {key: value for key, value in said.items() if key not in UNSAID or value != UNSAID[key]}
