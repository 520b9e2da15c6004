"""Makes torchvision importable beside a CPU build of torch, since their wheels do not always fit each other."""

import importlib
import sys

import torch

_declared: list[torch.library.Library] = []


def guard_torchvision() -> None:
    """Makes `import torchvision` work beside a CPU build of torch; where it works already, nothing is changed.

    The default torchvision wheel links against CUDA, so beside a CPU torch its operators are missing and the import
    fails, although transforms and models need no operators. Declaring the two that the import asks for is enough;
    torchvision.ops and torchvision.io stay unusable.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        # The declarations live as long as the library object.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        importlib.import_module("torchvision")
