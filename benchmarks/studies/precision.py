"""What another precision than float32 changes of a run's numbers: `python -m benchmarks.studies.precision --count 512`.

Needs data/ as `dvc repro` leaves it, and changes nothing in it; with `--state newest` a training that is not over takes
the model's place. Every row has the same random numbers; a FID of another seed stands beside them, to see what is
little.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import vqlcmd
from benchmarks.measure import Report
from vqlcmd.evaluation.extractors import extractors
from vqlcmd.evaluation.frechet import frechet_distance
from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.generator import Generator
from vqlcmd.images import loader, manifest
from vqlcmd.params import Params, load_params
from vqlcmd.precision import BF16, FLOAT32, PRECISIONS, TF32
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import paths
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.unfinished import load_state


def drawn(model: Generator, params: Params, count: int, seed: int, precision: str) -> Tensor:
    """Tokens (n, N) of the first `count` samples, in the order of their classes."""
    how, classes = model.sampling(precision=precision), len(model.class_names)
    rows = torch.arange(count, device=model.device).split(params.sample.batch_size)
    with torch.no_grad():
        return torch.cat(
            [
                model.method.sample(part % classes if classes else None, CounterRNG(seed, "sample", part), how)
                for part in rows
            ]
        )


def statistics(model: Generator, params: Params, tokens_BN: Tensor, precision: str) -> Statistics:
    """Of the features of samples, decoded and looked at in `precision`."""
    network, _ = extractors(params.evaluate, paths.proxy_weights, model.device, precision)
    moments = Moments()
    for part in tokens_BN.split(params.evaluate.batch_size):
        moments.add(network(to_uint8(model.tokenizer.decode(part, model.grid, precision=precision))).features)
    found = moments.statistics()
    assert found is not None, "at least two samples"
    return found


def codes(model: Generator, params: Params, count: int) -> dict[str, Tensor]:
    """Tokens (n, N) of real images by each precision of the encoder."""
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = loader.open_images(listed, paths.images_root())
    recipe = loader.Recipe.of(**params.images.model_dump()).one_view()
    images = loader.load_all(
        source, recipe, workers=0, skip_broken=True, limit=count, seed=0, purpose="precision"
    ).images
    found: dict[str, list[Tensor]] = {each: [] for each in PRECISIONS}
    for part in images.split(params.tokenize.batch_size):
        for each, kept in found.items():
            kept.append(model.tokenizer.encode(to_float(part.to(model.device)), precision=each))
    return {each: torch.cat(kept) for each, kept in found.items()}


def equal(one: Tensor, other: Tensor) -> str:
    """The share of equal tokens, and of grids that are equal throughout."""
    same = one == other
    return f"{same.double().mean():.4%} of tokens, {same.all(dim=1).double().mean():.2%} of grids"


def study(report: Report, model: Generator, count: int, precisions: Sequence[str]) -> None:
    """The three tables, of `count` images each."""
    params = load_params()
    reference, _ = load_weights(paths.REFERENCE / "features.safetensors", "reference")
    real = Statistics(reference["real_mean"], reference["real_covariance"], 0)
    exact = drawn(model, params, count, params.seed, FLOAT32)
    usual = frechet_distance(statistics(model, params, exact, FLOAT32), real)

    def row(name: str, tokens: Tensor) -> None:
        fid = frechet_distance(statistics(model, params, tokens, FLOAT32), real)
        report.row(samples=name, equal_to_float32=equal(tokens, exact), fid=f"{fid:.3f}", change=f"{fid - usual:+.3f}")

    report.row(samples=f"float32, {count}", equal_to_float32=equal(exact, exact), fid=f"{usual:.3f}", change="")
    for each in precisions:
        row(f"{each}, {count}", drawn(model, params, count, params.seed, each))
    row(f"float32, {count}, another seed", drawn(model, params, count, params.seed + 1, FLOAT32))
    for each in precisions:
        fid = frechet_distance(statistics(model, params, exact, each), real)
        report.row(decoder_and_extractor=each, fid=f"{fid:.3f}", change=f"{fid - usual:+.3f}")
    found = codes(model, params, count)
    for each in precisions:
        report.row(encoder=each, equal_to_float32=equal(found[each], found[FLOAT32]))


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="samples, and real images, in each row")
    parser.add_argument("--state", help="a folder in .state/train, or `newest`")
    given = parser.parse_args()
    model = load_state(given.state)[0] if given.state else vqlcmd.load("data")
    # Where there is no TF32 it is float32, which a test says.
    precisions = [TF32, BF16] if device().type == "cuda" else [BF16]
    if not isinstance(model, Generator):
        parser.error("the study is of pictures, and this model makes text: name another one")
    study(Report("studies.precision", "numbers in another precision"), model, given.count, precisions)


if __name__ == "__main__":
    main()
