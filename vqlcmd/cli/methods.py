"""What `method` in params.yaml can be, a line each."""

import importlib


def print_methods() -> None:
    """List the methods: what `method` in params.yaml, and `dvc exp run -S method=NAME`, can be."""
    from vqlcmd.methods import METHODS, method_class

    for name in METHODS:
        about = importlib.import_module(f"vqlcmd.methods.{name}").__doc__ or ""
        print(f"{name:16} {about.splitlines()[0]}")
        print(f"{'':16} sampler: {' | '.join(method_class(name).samplers)}")
