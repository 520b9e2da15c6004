"""Every sampler of masked models by its name. Section 8 of docs/method.md."""

from vqlcmd.diffusion.masked.ancestral import Ancestral, capped, never, rescaled
from vqlcmd.diffusion.masked.model import Sampler
from vqlcmd.diffusion.masked.reveal import Reveal, by_confidence, by_halton

SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(never),
    "confidence": Reveal(by_confidence),
    "halton": Reveal(by_halton),
    "remask_cap": Ancestral(capped),
    "remask_rescale": Ancestral(rescaled),
}
"""Valid values of `sampler`."""
