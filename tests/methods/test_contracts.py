"""Contracts of every method that params.yaml can name, and of variants: a new one is tested by being listed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, METHODS, TOKENS, VARIANTS, changes_of, integers, made, params, sampling
from vqlcmd import methods
from vqlcmd.diffusion import collapse
from vqlcmd.params import Sampling
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError

B = 4
X, LABEL = integers(CODES, B, TOKENS), integers(3, B, seed=1)
NOISE = CounterRNG(7, "test", torch.arange(B))

NAMES = (*METHODS, *VARIANTS)

every = pytest.mark.parametrize("name", NAMES)
ways = pytest.mark.parametrize(
    ("name", "sampler"),
    [(name, each) for name in NAMES for each in methods.method_class(changes_of(name)["method"]).samplers],
)


def sample(method: Any, rng: CounterRNG, label: Tensor | None, **options: Any) -> Tensor:
    known = options.pop("known", None)
    return method.sample(label, rng, sampling(**{"steps": 5, **options}), known)


@every
@pytest.mark.parametrize("classes", [0, 3])
def test_forward_gives_one_finite_number_per_term_and_image(name: str, classes: int) -> None:
    method = made(name, classes=classes).train()
    terms = method(X, LABEL if classes else None, NOISE, made(name, classes=classes))
    assert set(terms) == set(method.weights)
    assert all(weight > 0 for weight in method.weights.values())
    for term in terms.values():
        assert term.shape == (B,)
        assert term.dtype == torch.float32
        assert term.isfinite().all()


@every
def test_gradients_reach_the_student_and_not_the_teacher(name: str) -> None:
    method, teacher = made(name).train(), made(name)
    torch.stack(list(method(X, LABEL, NOISE, teacher).values())).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    missing = [key for key, value in method.named_parameters() if value.grad is None]
    assert not missing


@every
def test_terms_do_not_depend_on_the_images_beside_them(name: str) -> None:
    """Two processes with half a batch each count what one with the whole batch counts."""
    method, teacher = made(name), made(name)
    whole = method(X, LABEL, NOISE, teacher)
    for rows in (slice(0, 1), slice(1, 4)):
        part = method(X[rows], LABEL[rows], CounterRNG(7, "test", NOISE.rows[rows]), teacher)
        for term, values in part.items():
            assert torch.allclose(values, whole[term][rows], rtol=1e-4, atol=1e-5), term


@every
def test_terms_depend_on_the_seed_and_the_step_and_on_nothing_hidden(name: str) -> None:
    # Half of the classes dropped: all that is random in an autoregressive model's loss.
    method, teacher = (made(name, train={"class_drop": 0.5}) for _ in range(2))
    first = method(X, LABEL, NOISE, teacher)
    torch.manual_seed(1234)
    again, later = method(X, LABEL, NOISE, teacher), method(X, LABEL, NOISE.with_step(1), teacher)
    for term, values in first.items():
        assert torch.equal(values, again[term])
        assert not torch.equal(values, later[term])


@every
def test_samples_are_codes_and_depend_on_the_seed(name: str) -> None:
    method = made(name)
    tokens = sample(method, NOISE, LABEL)
    assert tokens.shape == (B, TOKENS)
    assert tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < CODES
    assert torch.equal(sample(method, NOISE, LABEL), tokens)
    assert not torch.equal(sample(method, CounterRNG(8, "test", NOISE.rows), LABEL), tokens)


@ways
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_samples_do_not_depend_on_the_size_of_their_batch(name: str, sampler: str, guidance: float) -> None:
    method, rows, label = made(name), torch.arange(10), integers(3, 10)
    batches = []
    for size in (5, 2):
        parts = [rows[start : start + size] for start in range(0, 10, size)]
        drawn = [
            sample(method, CounterRNG(7, "test", part), label[part], sampler=sampler, guidance=guidance)
            for part in parts
        ]
        batches.append(torch.cat(drawn))
    assert torch.equal(batches[0], batches[1])
    assert len(batches[0].unique(dim=0)) > 2


@ways
def test_tokens_that_are_known_come_out_as_they_were_given(name: str, sampler: str) -> None:
    method = made(name)
    known = X.masked_fill(torch.arange(TOKENS) % 2 == 0, -1)
    if not method.supports_inpainting:
        with pytest.raises(ConfigError, match="cannot hold others fixed"):
            sample(method, NOISE, LABEL, known=known, sampler=sampler)
        return
    tokens = sample(method, NOISE, LABEL, known=known, sampler=sampler)
    assert torch.equal(tokens[known >= 0], X[known >= 0])
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < CODES


@ways
@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("steps", [1, 4])
def test_network_calls_are_those_really_made(
    name: str, sampler: str, steps: int, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images through the network per image that comes out."""
    method = made(name)
    forward, images = method.network.forward, []

    def count(z: Tensor, *rest: Any) -> Tensor:
        images.append(len(z))
        return forward(z, *rest)

    monkeypatch.setattr(method.network, "forward", count)
    sample(method, NOISE, LABEL, steps=steps, sampler=sampler, guidance=guidance)
    assert sum(images) / B == method.nfe(sampling(steps, sampler, guidance=guidance))


@every
def test_the_class_steers_samples_where_there_are_classes(name: str) -> None:
    method, rows = made(name), torch.arange(20)
    one, other = (sample(method, CounterRNG(7, "test", rows), torch.full((20,), label)) for label in (0, 1))
    assert not torch.equal(one, other)


@every
def test_classes_are_ignored_by_a_method_without_them(name: str) -> None:
    method, teacher = made(name, classes=0), made(name, classes=0)
    assert torch.equal(sample(method, NOISE, LABEL), sample(method, NOISE, None))
    assert torch.equal(method.bound(X, LABEL, NOISE, 2), method.bound(X, None, NOISE, 2))
    ours, theirs = method(X, LABEL, NOISE, teacher), method(X, None, NOISE, teacher)
    assert all(torch.equal(ours[term], theirs[term]) for term in ours)


USES = {
    "forward": lambda method, sampler: method(X, LABEL, NOISE, method),
    "sample": lambda method, sampler: sample(method, NOISE, LABEL, sampler=sampler),
    "bound": lambda method, sampler: method.bound(X, LABEL, NOISE, 3),
}


@every
@pytest.mark.parametrize("use", USES)
def test_no_random_number_is_used_twice(name: str, use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One address, one use: a number used for two things ties them together."""
    words, method = CounterRNG._words, made(name).train()
    addresses: list[Any] = []

    def record(self: CounterRNG, draw: str, count: int) -> Tensor:
        addresses.append((self.seed, self.purpose, self.step, draw))
        return words(self, draw, count)

    monkeypatch.setattr(CounterRNG, "_words", record)
    for sampler in method.samplers if use == "sample" else ("",):
        addresses.clear()
        USES[use](method, sampler)
        # A bound may be exact, as of an autoregressive model: nothing is drawn.
        assert addresses or use == "bound"
        assert sorted(set(addresses)) == sorted(addresses)


@every
def test_the_bound_is_one_finite_number_of_nats_per_image(name: str) -> None:
    method = made(name)
    bound = method.bound(X, LABEL, NOISE, 4)
    assert bound.shape == (B,)
    assert bound.isfinite().all()
    assert (bound > 0).all()
    assert torch.allclose(
        method.bound(X[2:], LABEL[2:], CounterRNG(7, "test", NOISE.rows[2:]), 4), bound[2:], rtol=1e-4
    )


@every
def test_diagnostics_are_numbers_with_names(name: str) -> None:
    found = made(name).diagnostics(X, LABEL, NOISE)
    assert found
    assert all(isinstance(key, str) and type(value) is float for key, value in found.items())


@every
def test_diagnostics_measure_the_table_and_the_cross_entropy_at_five_times(name: str) -> None:
    method = made(name)
    found = method.diagnostics(X, LABEL, NOISE)
    assert collapse.geometry(method.table.detach()).items() <= found.items()
    assert [key for key in found if key.startswith("ce_")] == [f"ce_{share}" for share in (0.1, 0.25, 0.5, 0.75, 0.9)]


@every
def test_the_signal_falls_from_all_to_nothing_on_the_way_to_noise(name: str) -> None:
    u = torch.linspace(0, 1, 21, dtype=torch.float64)
    signal = made(name).alpha_bar(u)
    assert (signal.shape, signal.dtype) == (u.shape, torch.float64)
    assert (signal.diff() < 0).all()
    assert float(signal[0]) == pytest.approx(1, abs=3e-3)
    assert float(signal[-1]) == pytest.approx(0, abs=1e-3)


@every
def test_about_the_given_share_of_classes_becomes_null_in_training(name: str) -> None:
    rows = torch.arange(2000)
    method = made(name, train={"class_drop": 0.25})
    labels = method.drop_classes(torch.zeros(2000, dtype=torch.int64), CounterRNG(7, "test", rows))
    assert labels.unique().tolist() == [0, 3]
    assert float((labels == 3).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2000) ** 0.5)
    assert method.drop_classes(None, NOISE) is None


@every
def test_dropped_classes_are_what_the_network_is_asked_with_and_only_in_training(name: str) -> None:
    method, labels = made(name, train={"class_drop": 0.5}), []
    method.network.register_forward_pre_hook(lambda _, args: labels.append(args[2]))
    method(X, LABEL, NOISE, made(name))
    dropped = method.drop_classes(LABEL, NOISE)
    assert 0 < int((dropped == 3).sum()) < B
    assert all(torch.equal(label, dropped) for label in torch.cat(labels).split(B))
    labels.clear()
    method.bound(X, LABEL, NOISE, 2)
    assert all(torch.equal(label, LABEL) for label in labels)


@every
def test_a_sampler_of_another_method_is_refused_in_one_line(name: str) -> None:
    method = made(name)
    for sampler in ("ancestral", *(set(methods.samplers()) - set(method.samplers)), "no such"):
        how = sampling(5, sampler)
        if sampler in method.samplers:
            method.check(how)
            continue
        for ask in (method.check, lambda how: method.sample(LABEL, NOISE, how)):
            with pytest.raises(
                ConfigError, match=rf"^sampler {sampler} is not one of .*'s: set it to ancestral"
            ) as error:
                ask(how)
            assert "\n" not in str(error.value)


def test_the_knobs_of_sampling_are_those_of_the_parameters_and_of_the_chosen_method_alone() -> None:
    own = {
        "lcmd": {"score_temperature": 0.7},
        "maskgit": {"temperature": 2.5, "eta": 0.3},
        "mdlm": {"temperature": 1.5, "eta": 0.2},
        "flow_matching": {"corrector": 1.5},
        "vq_diffusion": {"truncation": 0.5},
    }
    assert own.keys() == methods.knobs().keys()
    for name in METHODS:
        chosen = params(method=name, sample_steps=7, guidance=1.5, sample=own).sampling()
        assert chosen == Sampling(7, "ancestral", 1.5, own.get(name, {}), "float32")
