"""vqlcmd.load: what is not asked for is sampled as it was trained to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vqlcmd
from tests.factory import METHODS, build, codebook, params
from tests.tokenizers import TINY, seeded
from vqlcmd import methods
from vqlcmd.generator import Generator
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import load_weights, save_weights
from vqlcmd.tokenizer import vqgan

HEADER = {"tokens": 16, "grid": [4, 4], "classes": ["a", "b", "c"]}
Make = Callable[..., Generator]


@pytest.fixture
def saved(tmp_path: Path) -> Make:
    """Saves a model with these parameters, and loads it as users do."""

    def make(**overrides: Any) -> Generator:
        chosen = params(**overrides)
        method = build(tokens=16, codes=TINY.n_embed, classes=3, **overrides)
        table = codebook(TINY.n_embed)
        vqgan.save(seeded(TINY), tmp_path / "vqgan.safetensors", {})
        header = {**HEADER, "vqgan_digest": sha256(tmp_path / "vqgan.safetensors")}
        methods.save_method(tmp_path / "model" / "model.safetensors", method, chosen, header, table)
        return vqlcmd.load(str(tmp_path))

    return make


OPTIONS = {"seed": 5, "sample_steps": 3, "guidance": 1.5, "train": {"class_drop": 0.1}}


@pytest.mark.parametrize("name", METHODS)
def test_a_bare_sample_is_what_the_pipeline_draws_with_the_parameters_of_training(saved: Make, name: str) -> None:
    own = {"maskgit": {"temperature": 0.5}, "vq_diffusion": {"truncation": 0.3}}
    model = saved(method=name, sample={"batch_size": 2, **own}, **OPTIONS)
    label = torch.tensor([0, 1, 2, 0])
    how = params(method=name, sample=own, **OPTIONS).sampling()
    drawn = model.method.sample(label, CounterRNG(5, "sample", torch.arange(4)), how)
    images = (model.tokenizer.decode(drawn, model.grid).clamp(-1, 1) * 127.5 + 127.5).round().byte()
    assert (model.sample(label.tolist()).int() - images.int()).abs().max() <= 1
    assert model.sampling() == how


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lcmd", {"steps": 1}),
        ("lcmd", {"sampler": "ddim"}),
        ("lcmd", {"guidance": 0.0}),
        ("lcmd", {"precision": "bf16"}),
        ("maskgit", {"temperature": 50.0}),
        ("mdlm", {"sampler": "halton"}),
        ("vq_diffusion", {"truncation": 1e-6}),
    ],
)
def test_an_option_takes_the_place_of_what_was_trained_with(saved: Make, name: str, options: dict[str, Any]) -> None:
    usual = {"maskgit": {"temperature": 0.0}, "vq_diffusion": {"truncation": 1.0}}
    model = saved(method=name, sample=usual, **OPTIONS)
    how, own = model.sampling(**options), {**vars(model.sampling(**options)), **model.sampling(**options).own}
    assert how != model.sampling()
    assert options.items() <= own.items()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("lcmd", {"temperature": 2.0}, "temperature is not a knob of lcmd, which has score_temperature"),
        ("maskgit", {"truncation": 0.5}, "truncation is not a knob of maskgit, which has "),
        ("maskgit", {"temperature": -1.0}, "temperature is -1.0, but must be greater than or equal to 0"),
        ("maskgit", {"sampler": "ddim"}, "sampler ddim is not one of MaskGIT's"),
        ("lcmd", {"steps": 0}, "steps is 0, but must be 1 or more"),
        ("lcmd", {"precision": "float16"}, "precision is 'float16', but must be one of float32, tf32, bf16"),
        ("lcmd", {"guidance": -1.0}, "guidance is -1, but must be a number from 0"),
    ],
)
def test_what_the_model_cannot_do_is_one_line(saved: Make, name: str, options: dict[str, Any], says: str) -> None:
    """`gallery --temperature 2` of a VQ-LCMD model drew the same picture as without, and did not say so."""
    model = saved(method=name, **OPTIONS)
    with pytest.raises(ConfigError) as caught:
        model.sample([0, 1], **options)
    assert str(caught.value).startswith(says)


def test_the_precision_asked_for_is_that_of_the_decoder_too_and_never_of_the_encoder(
    saved: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = saved(method="lcmd", **OPTIONS), list[tuple[str, str | None]]()
    for verb in ("encode", "decode"):
        work = getattr(model.tokenizer, verb)
        monkeypatch.setattr(
            model.tokenizer,
            verb,
            lambda *args, verb=verb, work=work, **how: seen.append((verb, how.get("precision"))) or work(*args, **how),
        )
    image, hole = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.arange(64).view(8, 8) < 32
    for asked, used in (("bf16", "bf16"), (None, "float32")):
        seen.clear()
        model.sample([0], precision=asked)
        model.inpaint(image, hole, 1, 1, precision=asked)
        assert seen == [("decode", used), ("encode", None), ("decode", used)]


def test_a_model_from_before_there_was_a_choice_samples_in_float32(saved: Make) -> None:
    model = saved(method="lcmd", **OPTIONS)
    assert model.about["sampling"].pop("precision") == "float32"
    assert model.sampling().precision == "float32"
    assert saved(method="lcmd", **OPTIONS, sample={"precision": "bf16"}).sampling().precision == "bf16"


def test_in_painting_starts_from_the_same_values_but_guides_only_to_a_class(
    saved: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = saved(method="lcmd", **OPTIONS), []
    original = model.method.sample
    monkeypatch.setattr(model.method, "sample", lambda *args: seen.append(args[2]) or original(*args))
    image, hole = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.arange(64).view(8, 8) < 32
    for class_ in (1, None):
        model.inpaint(image, hole, class_, 1)
    assert [(how.steps, how.guidance) for how in seen] == [(3, 1.5), (3, 0.0)]


@pytest.mark.parametrize("lost", ["sampling", "params"])
def test_a_model_of_another_version_is_one_line(saved: Make, tmp_path: Path, lost: str) -> None:
    saved(method="lcmd")
    path = tmp_path / "model" / "model.safetensors"
    tensors, about = load_weights(path, "model")
    about = {key: value for key, value in about.items() if key != lost} if lost == "sampling" else about
    if lost == "params":
        del about["params"]["schedule"]
    save_weights(path, "model", tensors, about)
    with pytest.raises(DataError, match=r"another version.*`dvc repro` trains it anew"):
        vqlcmd.load(str(tmp_path))


def test_a_class_is_named_or_numbered(saved: Make) -> None:
    """A name was a TypeError."""
    model = saved(method="maskgit", **OPTIONS)
    assert torch.equal(model.sample(["b", 2]), model.sample([1, 2]))
    image, hole = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.arange(64).view(8, 8) < 32
    assert torch.equal(model.inpaint(image, hole, "c", 2)[0], model.inpaint(image, hole, 2, 2)[0])


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["d"], "no class of this model is called d: it has 3, such as a, b, c"),
        (["\x1b[2J" * 10**5], r"no class of this model is called \x1b[2J"),
        ([3], "class 3 does not exist: choose 0 to 2, or a class's name"),
        ([-1], "class -1 does not exist"),
        ("a", "'a' is one class: pass a list of classes"),
        (4, "this model has 3 classes: pass a list of them"),
    ],
)
def test_a_class_that_is_none_is_one_line(saved: Make, classes: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        saved(method="maskgit", **OPTIONS).sample(classes)
    line = str(caught.value)
    assert line.startswith(says)
    assert line.isprintable()
    assert len(line) < 300


HOSTILE: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], object]] = {
    "no codebook": lambda about, tensors: tensors.pop("vqgan_codebook"),
    "a codebook of one row": lambda about, tensors: tensors.update(vqgan_codebook=torch.zeros(1, 3)),
    "a codebook of one dimension": lambda about, tensors: tensors.update(vqgan_codebook=torch.zeros(TINY.n_embed)),
    "a tensor less": lambda about, tensors: tensors.pop("network.norm.weight"),
    "a tensor more": lambda about, tensors: tensors.update(more=torch.zeros(1)),
    "a tensor of another shape": lambda about, tensors: tensors.update({"network.norm.weight": torch.zeros(3)}),
    "ten thousand layers": lambda about, tensors: about["params"]["network"].update(layers=10_000),
    "a width of 65,536": lambda about, tensors: about["params"]["network"].update(width=65_536, heads=1),
    "no tokens": lambda about, tensors: about.update(tokens=0),
    "tokens without end": lambda about, tensors: about.update(tokens=10**15),
    "tokens that are a list": lambda about, tensors: about.update(tokens=[16]),
    "no classes": lambda about, tensors: about.pop("class_names"),
    "classes that are numbers": lambda about, tensors: about.update(class_names=[1, 2, 3]),
    "one class more": lambda about, tensors: about.update(class_names=["a", "b", "c", "d"]),
    "no parameters": lambda about, tensors: about.pop("params"),
    "parameters that are a text": lambda about, tensors: about.update(params="x"),
    "sampling that is a text": lambda about, tensors: about.update(sampling="x"),
    "steps without end": lambda about, tensors: about["sampling"].update(steps=10**12),
    "a grid that is none": lambda about, tensors: about.update(grid=[3, 3]),
    "images that are a list": lambda about, tensors: about.update(images=[1]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_not_what_it_says_is_one_line_before_it_is_built(saved: Make, tmp_path: Path, name: str) -> None:
    """A model is two files that may come from anybody."""
    saved(method="lcmd")
    path = tmp_path / "model" / "model.safetensors"
    tensors, about = load_weights(path, "model")
    HOSTILE[name](about, tensors)
    save_weights(path, "model", tensors, about)
    with pytest.raises(DataError) as caught:
        vqlcmd.load(str(tmp_path))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    assert "trains it anew" in line or "of another version: `dvc repro`" in line
