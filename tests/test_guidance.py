"""Equation 4 around any prediction."""

import pytest
import torch
from torch import Tensor

from tests.factory import normal
from vqlcmd.guidance import guided

NULL = 3
TABLE = normal(NULL + 1, 5, 6, dtype=torch.float64)
LABEL, T, Z = torch.tensor([0, 2, 1, 2]), torch.tensor([0.1, 0.2, 0.3, 0.4]), normal(4, 5, 2)


def predict(z_BND: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """Logits that tell image, time and class apart."""
    assert label is not None
    return TABLE[label] * (1 + t[:, None, None]) + z_BND.sum(dim=2, keepdim=True) * TABLE[0]


def test_without_guidance_it_is_the_very_same_function() -> None:
    assert guided(predict, 0, null=NULL) is predict


@pytest.mark.parametrize("w", [0.5, 1.0, 3.0])
def test_guided_probabilities_are_the_normalised_product_of_powers(w: float) -> None:
    """P = p_c^(1 + w) / p_null^w, normalised, for each image with its own class."""
    p_c = predict(Z, T, LABEL).softmax(dim=2)
    p_null = predict(Z, T, torch.full_like(LABEL, NULL)).softmax(dim=2)
    product = p_c ** (1 + w) / p_null**w
    found = guided(predict, w, null=NULL)(Z, T, LABEL).softmax(dim=2)
    assert torch.allclose(found, product / product.sum(dim=2, keepdim=True), rtol=1e-10)


def test_the_null_class_cannot_be_guided_away_from_itself() -> None:
    label = torch.full_like(LABEL, NULL)
    assert torch.allclose(guided(predict, 2.0, null=NULL)(Z, T, label), predict(Z, T, label), rtol=1e-10)


def test_images_stay_in_their_order() -> None:
    together = guided(predict, 1.0, null=NULL)(Z, T, LABEL)
    for image in range(len(Z)):
        rows = slice(image, image + 1)
        assert torch.allclose(guided(predict, 1.0, null=NULL)(Z[rows], T[rows], LABEL[rows]), together[rows])


def test_guidance_without_classes_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="guidance needs classes"):
        guided(predict, 1.0, null=NULL)(Z, T, None)
