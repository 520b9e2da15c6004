"""Commands that begin with your data: scan lists it, start also writes a params.yaml that suits its size."""

import math
import os
import shlex
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqlcmd.cli import text
from vqlcmd.cli.checkout import hand_over, require_checkout
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import ConfigError, shown

if TYPE_CHECKING:
    from vqlcmd.images.sources import ImageSource

PARAMS = Path("params.yaml")
PRESET = Path("presets/pictures.yaml")
NOTICEABLE = 10_000
"""From so many images on, reading them takes more than a moment."""
MEASURED = 300
"""How many pictures are opened to measure their sides."""

Name = Annotated[str, typer.Argument(help="A name for the data set: letters, digits, - and _.")]
Source = Annotated[
    str,
    typer.Argument(
        help="A folder of images, sub-folders being classes; .tar or .zip archives of images, one or a folder of "
        "many; an LMDB; sklearn-digits; or torchvision:NAME (CIFAR10, say), which is downloaded."
    ),
]
NoClasses = Annotated[
    bool, typer.Option("--no-classes", help="Sub-folders and labels are no classes: the thousands of FFHQ.")
]
NoCopies = Annotated[
    bool, typer.Option("--no-copies", help="Do not look for copies of one picture, which reads all images once.")
]


def scan(
    name: Name,
    source: Source,
    no_classes: NoClasses = False,
    no_copies: NoCopies = False,
    as_text: Annotated[
        bool, typer.Option("--text", help="A folder of text files: .txt, .text, .md and .rst, in UTF-8.")
    ] = False,
) -> None:
    """List the images of SOURCE, or with --text its texts, in data/manifests/NAME.json.

    `dataset: NAME` in params.yaml then selects them. Whether SOURCE is a folder, archives, an LMDB or a named data set
    is detected.
    """
    if not Path("dvc.yaml").is_file():
        raise ConfigError(
            f"there is no dvc.yaml here, and {paths.MANIFESTS} lies beside it: run this in a checkout's root, or in a "
            "folder that `vqlcmd init DIR` has made"
        )
    hand_over()
    if as_text:
        text.scan(name, Path(source))
        return
    _scan_images(name, source, classes=not no_classes, copies=not no_copies)
    # An experiment runs in a copy of what is committed; DVC unstages what is only added.
    listed = paths.MANIFESTS / f"{name}.json"
    print(f"Next:\n  git add {listed} && git commit -m 'Data set {name}'\n  dvc exp run -S dataset={name}")


def start(
    name: Name,
    source: Source,
    size: Annotated[
        int | None, typer.Option(help="Pixels of a side: 16, 32, 64 or 128. [default: 32, or 16 where they are small]")
    ] = None,
    no_classes: NoClasses = False,
    no_copies: NoCopies = False,
) -> None:
    """Scan pictures and write a params.yaml for them: presets/pictures.yaml, scaled to their size and number."""
    require_checkout("start")
    from vqlcmd.params import scaling
    from vqlcmd.runtime.yaml_file import read_yaml

    if size is not None and size not in scaling.SHAPES:
        raise ConfigError(f"--size {size} has no shape here: choose one of {', '.join(map(str, scaling.SHAPES))}")
    if "vqgan" not in read_yaml(Path("dvc.yaml"))["stages"]:
        raise ConfigError("dvc.yaml is not that of images: `git checkout dvc.yaml dvc.lock` brings it back")
    _raise_if_unsaved()
    images = _scan_images(name, source, classes=not no_classes, copies=not no_copies)
    side = _median_side(images)
    chosen = size or scaling.size_for(side)
    values = {"dataset": name, **scaling.values(read_yaml(PRESET), len(images), chosen, len(images.classes))}
    changed = scaling.write(PRESET, values, PARAMS)
    print(f"{PARAMS}: {PRESET}, but for {', '.join(f'{key} {value}' for key, value in changed.items())}")
    if side < chosen:
        print(f"Half of the pictures are narrower than {side + 1:g} pixels: they are enlarged to {chosen}")
    listed = paths.MANIFESTS / f"{name}.json"
    print(
        f"Next:\n  git add {listed} {PARAMS} && git commit -m 'Data set {name}'\n"
        "  vqlcmd plan                     # what it will take on this machine\n  dvc repro"
    )


def _raise_if_unsaved() -> None:
    """Raises ConfigError if params.yaml has values that are neither committed nor a preset's."""
    if not PARAMS.exists():
        return
    here = PARAMS.read_bytes()
    committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=False)
    saved = [path.read_bytes() for path in sorted(PRESET.parent.glob("*.yaml"))]
    if here not in [*saved, *([committed.stdout] if committed.returncode == 0 else [])]:
        raise ConfigError(
            f"{PARAMS} has values that no commit has, and they would be lost: commit it, or `git checkout {PARAMS}`"
        )


def _scan_images(name: str, source: str, *, classes: bool, copies: bool) -> "ImageSource":
    """Writes the manifest of images and prints what it has; returns the opened source."""
    from vqlcmd.images import manifest
    from vqlcmd.images.sources import torchvision_sets
    from vqlcmd.runtime.progress import Progress

    if source.startswith(torchvision_sets.PREFIX):
        source = str(torchvision_sets.fetch(source, paths.images_root()))
    found, images = manifest.scanned(name, source, classes=classes)
    if copies:
        from vqlcmd.images.copies import find_copies

        with Progress("copies", len(images), quiet=len(images) < NOTICEABLE) as progress:
            found = found.model_copy(update={"copies": find_copies(images, progress.update)})
    path = paths.MANIFESTS / f"{name}.json"
    manifest.write(found, path)
    print(f"{path}: {found.image_count} images, {len(found.classes) or 'no'} classes ({found.kind})")
    if found.classes:
        named = [shown(each, 40) for each in found.classes]
        print(f"The classes, unless --no-classes says that they are none: {manifest.shortened(named, 5)}")
    if found.copies:
        named = [f"{shown(images.name(copy))} of {shown(images.name(first))}" for copy, first in found.copies.items()]
        print(f"Copies, which stay on one side of the split: {len(named)}: {manifest.shortened(named, 5)}")
    if images.left_out:
        listed = ", ".join(f"{count} {ending}" for ending, count in sorted(images.left_out.items()))
        print(f"Left out, since their formats are not read: {listed}")
    if found.folder is not None:
        # Not resolve(): a link's own name is the one in the manifest.
        parent = shlex.quote(os.path.dirname(os.path.abspath(source)))
        print(f"The stages look for them here:\n  export VQLCMD_IMAGES={parent}")
    return images


def _median_side(images: "ImageSource") -> float:
    """The median of the shorter sides of up to MEASURED pictures, in pixels; inf if none can be read."""
    from vqlcmd.images.formats import quiet

    sides = []
    count = min(len(images), MEASURED)
    with quiet():
        for i in range(count):
            try:
                with images.open(i * len(images) // count) as picture:
                    sides.append(min(picture.size))
            except Exception:  # reported when the image is decoded
                continue
    return statistics.median(sides) if sides else math.inf


def mount(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (scan, start):
        app.command()(command)
