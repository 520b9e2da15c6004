"""The tab Look inside: codes near each other, the table of embeddings, and how the training went."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqlcmd import figures
from vqlcmd.generator import Generator
from vqlcmd.page import codes, curves, pictures
from vqlcmd.page.browser.events import NOW, QUEUE, told
from vqlcmd.page.browser.toolkit import SelectData, gr
from vqlcmd.tokenizer import codebook_table

NEAREST, COLUMNS = 12, 4


def inside_tab(model: Generator, curves_at: Path, folder: Path, tab: Any) -> None:
    """Pictures are drawn into `folder` when `tab` is first opened; `curves_at` is where train.tsv may lie."""
    tables, most = codes.tables(model), model.tokenizer.codes - 1
    plain: dict[str, Any] = {
        "show_label": False,
        "format": "png",
        "interactive": False,
        "buttons": [],
    }
    drawn = gr.State(False)
    status = gr.Markdown("**Codes.** Each as its own patch. Click one to see which are near to it, and how far.")
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320):
            chart = gr.Image(label="All codes", elem_classes="inside pixels", **plain)
        with gr.Column(scale=1, min_width=320):
            with gr.Row():
                code = gr.Number(0, label="Code", precision=0, minimum=0, maximum=most, min_width=100)
                space = gr.Dropdown(list(tables), value=next(iter(tables)), label="Near in", filterable=False)
            near = gr.HTML()
    gr.Markdown("**Embeddings.** Their norms, and how far each is from every other.")
    norms = gr.Image(label="Norms and distances", elem_classes="inside", **plain)
    went = curves_at.is_file()
    gr.Markdown(f"**Training**, from {curves_at}.", visible=went)
    training = gr.Image(label="Curves of the training", elem_classes="inside", visible=went, **plain)

    def near_to(code: int, space: str) -> str:
        order, far = codes.nearest(tables[space], code, NEAREST)
        words = [f"{number}: {distance:.2f}" for number, distance in zip(order, far, strict=True)]
        return pictures.gallery(codes.patches(model, order), words, COLUMNS)

    def look(done: bool, code: int, space: str) -> Iterator[Any]:
        if done:
            yield (gr.skip(),) * 6
            return
        yield True, codes.chart(model), gr.skip(), gr.skip(), near_to(code, space), gr.skip()
        file = folder / f"embeddings-{secrets.token_hex(8)}.png"
        figures.embeddings(codebook_table(model.tokenizer), model.method.table.cpu(), file)
        yield True, gr.skip(), str(file), gr.skip(), gr.skip(), gr.skip()
        if went:
            file = folder / f"training-{secrets.token_hex(8)}.png"
            curves.draw(curves.read(curves_at), list(model.method.weights), file)
            yield True, gr.skip(), gr.skip(), str(file), gr.skip(), gr.skip()

    def clicked(event: SelectData) -> int:
        x, y = event.index
        return codes.code_at(model, x, y)

    tab.select(told(look, 5), [drawn, code, space], [drawn, chart, norms, training, near, status], **QUEUE)
    chart.select(clicked, None, code, **NOW)
    gr.on([code.change, space.change], near_to, [code, space], near, **QUEUE)
