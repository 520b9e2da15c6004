"""tokens -> data/reference: a language model that samples are measured with, and the text's size when compressed."""

import sys

import torch

from vqlcmd.methods.autoregressive import Autoregressive
from vqlcmd.params import load_text
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import launcher, paths, pipeline, resume
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.safetensors_file import save_weights
from vqlcmd.text import vocabulary
from vqlcmd.text_metrics import compressors
from vqlcmd.tokens import shards, streaming
from vqlcmd.training.loop import train


def run() -> None:
    """Train an autoregressive model on the training blocks, with its own seed; measure it and the compressors."""
    params = load_text()
    settings, about_it = params.reference, params.language_model()
    header = shards.read_header(paths.TOKENS)
    tokens = belongs.tokens(paths.TOKENS, header)
    belongs.check_belong(belongs.tokenizer(paths.VOCABULARY), tokens)
    split = streaming.open_split(paths.TOKENS, "train", device(), paths.token_memory())
    heldout = shards.read_split(paths.TOKENS, "heldout").to(device())
    torch.manual_seed(about_it.seed)
    model = Autoregressive(about_it, shards.read_codebook(paths.TOKENS), header["tokens"], 0).to(device())
    own = settings.model_dump(mode="json")
    this = resume.Run("reference", own, header, pipeline.code(params.model_dump(), "reference"))
    with resume.State.of(this) as state, launcher.graceful() as stop:
        average, _ = train(
            model,
            split,
            heldout,
            about_it.train,
            steps=about_it.train_steps,
            seed=about_it.seed,
            state=state,
            stop=stop,
            micro_batch=paths.micro_batch(),
            unit=params.unit,
        )
        nats = list[torch.Tensor]()
        for first in range(0, len(heldout), settings.batch_size):
            part = heldout.tokens[first : first + settings.batch_size].long()
            rows = torch.arange(first, first + len(part))
            nats.append(average.bound(part, None, CounterRNG(0, "bound", rows), 1).cpu())
        about = {
            "made_from": {"tokens_digest": tokens.origin["tokens"], "reference": own},
            "heldout_nats_per_token": float(torch.cat(nats).double().mean()) if nats else None,
            "compressed_bits_per_character": _compressed(settings.compressors),
            **({"resumed_across": state.edits} if state.edits else {}),
        }
        save_weights(paths.LANGUAGE_MODEL, "language model", average.state_dict(), about)
        state.finish()


def _compressed(names: list[str]) -> dict[str, float]:
    """Bits per character of the held-out text by each compressor, also after the training text if it remembers that."""
    symbols = vocabulary.load(paths.VOCABULARY)
    text, before = (
        symbols.decode(shards.read_split(paths.TOKENS, name).tokens.numpy().ravel()) for name in ("heldout", "train")
    )
    found: dict[str, float] = {}
    for name in names if text else []:
        print(f"reference: {name}", flush=True)
        found[name] = compressors.bits(name, text) / len(text)
        if compressors.COMPRESSORS[name].remembers:
            found[f"{name}_after_training_text"] = compressors.bits(name, text, before) / len(text)
    return found


def main() -> int:
    """Run the stage as `python -m stages.text.reference` does; returns the exit code."""
    return launcher.main("text.reference", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
