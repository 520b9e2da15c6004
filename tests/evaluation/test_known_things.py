"""The distances under EfficientNet order known things rightly, on crops of two photographs."""

import pytest

from benchmarks import known
from vqlcmd.evaluation.extractors import extractor


@pytest.mark.slow
def test_distances_grow_with_what_was_done_to_the_images() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the optional extra `features` is not installed")
    found = known.measure(extractor("efficientnet"), known.sets(100))
    for metric in (0, 1):
        value = {name: each[metric] for name, each in found.items()}
        others = value.pop("other images")
        assert all(others < spoilt for spoilt in value.values()), value
        strengths = list(known.SPOILT)
        for mild, strong in zip(strengths[::2], strengths[1::2], strict=True):
            assert value[mild] < value[strong], value


def test_the_sets_are_of_one_size_and_share_no_image_but_the_spoilt_ones() -> None:
    found = known.sets(6)
    assert {len(images) for images in found.values()} == {6}
    whole = [image.tobytes() for name in ("reference", "other images", "one class only") for image in found[name]]
    assert len(set(whole)) == 18
    assert len({image.size for images in found.values() for image in images}) == 1
    spoilt = {name: images[0].tobytes() for name, images in found.items() if name in known.SPOILT}
    assert len({*spoilt.values(), found["other images"][0].tobytes()}) == len(known.SPOILT) + 1
