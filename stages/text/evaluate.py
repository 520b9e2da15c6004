"""samples, tokens, reference, bound -> metrics/{evaluate,samples,copied,protocol}.json: metrics of samples of text."""

import itertools
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vqlcmd.methods.autoregressive import Autoregressive
from vqlcmd.params import TextParams, load_text
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.files import sha256, write_json
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.text import blocks, corpus, vocabulary
from vqlcmd.text.vocabulary import Vocabulary
from vqlcmd.text_metrics import measures
from vqlcmd.text_metrics.suffix_automaton import Run, SuffixAutomaton
from vqlcmd.tokens import shards

AT_ONCE = 2**20
"""Tokens of the training text that are converted to Python integers at once, for the automaton."""


def run() -> None:
    """Measure the samples and, for comparison, as many held-out blocks, whose values good samples come near to."""
    params = load_text()
    header, real = shards.read_header(paths.SAMPLES), shards.read_header(paths.TOKENS)
    tensors, about = load_weights(paths.LANGUAGE_MODEL, "language model")
    made_from = (
        belongs.tokenizer(paths.VOCABULARY),
        belongs.tokens(paths.TOKENS, real),
        belongs.samples(paths.SAMPLES, header),
        belongs.Artefact("reference", paths.REFERENCE, {"tokens": about["made_from"]["tokens_digest"]}),
    )
    belongs.check_belong(*made_from)
    symbols = vocabulary.load(paths.VOCABULARY)
    training, heldout = (shards.read_split(paths.TOKENS, name) for name in ("train", "heldout"))
    rows = {"samples": shards.read_split(paths.SAMPLES, "samples").tokens, "heldout": heldout.tokens}
    rows["heldout"] = rows["heldout"][: len(rows["samples"])]
    model = Autoregressive(params.language_model(), shards.read_codebook(paths.TOKENS), real["tokens"], 0)
    model.load_state_dict(tensors)
    model.to(device()).eval().requires_grad_(False)

    known = {word[0] for word in re.finditer(r"\S+", symbols.decode(training.tokens.numpy().ravel()))}
    found: dict[str, dict[str, Any]] = {}
    for name, tokens in rows.items():
        found[name] = _written(tokens.numpy(), symbols, known, params.evaluate.ngrams)
        found[name]["perplexity_proxy"] = _perplexity(model, tokens, params.evaluate.batch_size)
    chosen = {name: tokens[: params.evaluate.copied].tolist() for name, tokens in rows.items()}
    runs = _copied(chosen, training.tokens.numpy())
    for name, each in runs.items():
        found[name] |= _lengths(each, rows[name].numpy(), symbols)
    write_json(
        paths.METRICS / "evaluate.json",
        {
            **_bits(heldout.tokens.numpy(), symbols),
            **found["samples"],
            **_measured_by_itself(params.method, header["seed"], about["made_from"]["reference"]["seed"]),
            "heldout": found["heldout"],
            "compressed_bits_per_character": about["compressed_bits_per_character"],
            "heldout_perplexity_proxy_all": _exp(about["heldout_nats_per_token"]),
            "generated_blocks": len(rows["samples"]),
            "heldout_copies_left_out": real["heldout_copies_left_out"],
            "steps": header["steps"],
            "nfe": header["nfe"],
            "parameters": header["parameters"],
        },
    )
    texts = [symbols.decode(tokens) for tokens in rows["samples"][: params.evaluate.shown].numpy()]
    # Lists, since DVC does not look for metrics in lists.
    write_json(paths.METRICS / "samples.json", texts)
    longest = _longest(params, runs["samples"], rows["samples"].numpy(), training, symbols)
    write_json(paths.METRICS / "copied.json", longest)
    write_json(
        paths.METRICS / "protocol.json",
        [
            {
                "of": "samples",
                "text": real["manifest"],
                "blocks": len(rows["samples"]),
                "heldout_blocks": len(rows["heldout"]),
                "language_model": {"sha256": sha256(paths.LANGUAGE_MODEL), **about["made_from"]},
                **({"resumed_across": header["resumed_across"]} if "resumed_across" in header else {}),
            }
        ],
    )
    belongs.note_origin(
        paths.ORIGIN / "evaluate.json", {"evaluate": params.evaluate.model_dump(mode="json")}, *made_from[:3]
    )


def _written(tokens_BN: np.ndarray, symbols: Vocabulary, known: set[str], ngrams: int) -> dict[str, Any]:
    """{name: value} of the statistics of words and tokens in blocks (B, N)."""
    words = [measures.words(symbols.decode(row)) for row in tokens_BN]
    return {
        "words_known": measures.known_share(words, known),
        **{f"distinct_{n}": measures.distinct_ngrams(words, n) for n in range(1, ngrams + 1)},
        "entropy_words": measures.entropy(itertools.chain.from_iterable(words)),
        "entropy_tokens": float(np.mean([measures.entropy(row.tolist()) for row in tokens_BN])) if len(words) else None,
    }


def _perplexity(model: Autoregressive, tokens_BN: torch.Tensor, batch_size: int) -> float | None:
    """exp of the language model's nats per token, over all blocks (B, N); None for none."""
    nats = list[torch.Tensor]()
    with Progress("evaluate", len(tokens_BN), unit="blocks") as progress:
        for first in range(0, len(tokens_BN), batch_size):
            rows = torch.arange(first, min(first + batch_size, len(tokens_BN)))
            part = tokens_BN[rows].long().to(device())
            nats.append(model.bound(part, None, CounterRNG(0, "bound", rows), 1).cpu())
            progress.update(int(rows[-1]) + 1, len(rows))
    return _exp(float(torch.cat(nats).double().mean())) if nats else None


def _measured_by_itself(method: str, seed: int, reference_seed: int) -> dict[str, str | None]:
    """No perplexity where the samples may be of the model that measures them: its method and its seed.

    Its other parameters may differ, which is not looked at.
    """
    if method != "autoregressive" or seed != reference_seed:
        return {}
    reason = f"seed is {seed}, as reference.seed, so a model might measure its own samples: choose another seed"
    return {"perplexity_proxy": None, "perplexity_proxy_null": reason}


def _exp(nats: float | None) -> float | None:
    return None if nats is None else math.exp(nats)


def _copied(chosen: dict[str, list[list[int]]], training_BN: np.ndarray) -> dict[str, list[Run]]:
    """The longest run of each row that occurs in the training text, which is the blocks (B, N) concatenated."""
    automaton = SuffixAutomaton(list(itertools.chain.from_iterable(chosen.values())))
    with Progress("copied runs", training_BN.size, unit="tokens") as progress:

        def text() -> Iterator[int]:
            flat = training_BN.ravel()
            for start in range(0, len(flat), AT_ONCE):
                yield from flat[start : start + AT_ONCE].tolist()
                progress.update(min(start + AT_ONCE, len(flat)), AT_ONCE)

        automaton.read(text())
    runs = iter(automaton.longest())
    return {name: list(itertools.islice(runs, len(rows))) for name, rows in chosen.items()}


def _lengths(runs: list[Run], tokens_BN: np.ndarray, symbols: Vocabulary) -> dict[str, float | None]:
    """In characters: the longest copied run of all blocks, and the mean over blocks of the longest of each."""
    lengths = [len(_text(run, row, symbols)) for run, row in zip(runs, tokens_BN, strict=False)]
    return {
        "copied_run_longest": max(lengths, default=None),
        "copied_run_mean": sum(lengths) / len(lengths) if lengths else None,
    }


def _text(run: Run, row: np.ndarray, symbols: Vocabulary) -> str:
    return symbols.decode(row[run.end - run.length : run.end])


def _longest(
    params: TextParams, runs: list[Run], tokens_BN: np.ndarray, training: shards.Split, symbols: Vocabulary
) -> list[dict[str, Any]]:
    """The `evaluate.shown` longest copied runs, and the file that each is from."""
    listed = corpus.read(paths.MANIFESTS / f"{params.dataset}.json")
    length = training.tokens.shape[1]
    found = []
    for sample in sorted(range(len(runs)), key=lambda row: -runs[row].length)[: params.evaluate.shown]:
        run = runs[sample]
        if run.length:
            # Where the block with the run's first token begins; its later tokens may be from another passage.
            block = (run.place - run.length) // length
            file, token = blocks.file_and_token(int(training.index[block]))
            text = _text(run, tokens_BN[sample], symbols)
            found.append({"sample": sample, "text": text, "file": listed.files[file].path, "near_token": token})
    return found


def _bits(heldout_BN: np.ndarray, symbols: Vocabulary) -> dict[str, Any]:
    """The bound of metrics/bound.json in bits per character of the held-out text."""
    bound = read_json(paths.METRICS / "bound.json", "`dvc repro` makes it")
    if not heldout_BN.size:
        return {"bits_per_character": None, "bits_per_character_null": shards.NONE_HELD_OUT}
    factor = heldout_BN.size / len(symbols.decode(heldout_BN.ravel())) / math.log(2)
    error = bound["standard_error"]
    return {
        "bits_per_character": bound["nats_per_token"] * factor,
        "bits_per_character_error": None if error is None else error * factor,
    }


def main() -> int:
    """Run the stage as `python -m stages.text.evaluate` does; returns the exit code."""
    return launcher.main("text.evaluate", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
