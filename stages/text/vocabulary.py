"""text files -> data/vocabulary.json: the vocabulary that text is tokenized with."""

import sys
from collections.abc import Iterator

from vqlcmd.params import TextParams, load_text
from vqlcmd.runtime import launcher, paths
from vqlcmd.text import corpus
from vqlcmd.text.vocabulary import KINDS, Vocabulary


def run() -> None:
    """Build the vocabulary from the whole text, held-out parts too: a symbol reveals nothing about what is held out."""
    params = load_text()
    Vocabulary(KINDS[params.text.vocabulary].build(_passages(params), params.text.file), params.text.reduce).save(
        paths.VOCABULARY
    )


def _passages(params: TextParams) -> Iterator[str]:
    listed = corpus.read(paths.MANIFESTS / f"{params.dataset}.json")
    for text in corpus.texts(listed, paths.text_root()):
        yield from corpus.passages(text, corpus.REDUCTIONS[params.text.reduce])


def main() -> int:
    """Run the stage as `python -m stages.text.vocabulary` does; returns the exit code."""
    return launcher.main("text.vocabulary", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
