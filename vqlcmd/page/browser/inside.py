"""The tab Look inside: codes and their nearest neighbours, the table of embeddings, and the curves of the training."""

from collections.abc import Iterator
from typing import Any

from vqlcmd.page.browser.events import NOW, QUEUE, told
from vqlcmd.page.browser.toolkit import SelectData, gr
from vqlcmd.page.chart import code_at
from vqlcmd.page.description import Description
from vqlcmd.page.process import Models

NEAREST, COLUMNS = 12, 4


def inside_tab(name: str, model: Description, models: Models, folder: str, tab: Any) -> None:
    """Builds the tab. Its pictures are drawn into `folder` when `tab` is first opened."""
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
                code = gr.Number(0, label="Code", precision=0, minimum=0, maximum=model.codes - 1, min_width=100)
                space = gr.Dropdown(list(model.tables), value=model.tables[0], label="Near in", filterable=False)
            near = gr.HTML()
    gr.Markdown("**Embeddings.** Their norms, and how far each is from every other.")
    norms = gr.Image(label="Norms and distances", elem_classes="inside", **plain)
    went = model.curves is not None
    gr.Markdown(f"**Training**, from {model.curves}.", visible=went)
    training = gr.Image(label="Curves of the training", elem_classes="inside", visible=went, **plain)

    def near_to(code: int, table: str) -> Iterator[Any]:
        for found in models.ask("near", name, code=code, table=table, count=NEAREST, columns=COLUMNS):
            yield found, gr.skip()

    def look(done: bool, code: int, table: str) -> Iterator[Any]:
        if done:
            yield (gr.skip(),) * 6
            return
        shown = {"chart": gr.skip(), "norms": gr.skip(), "training": gr.skip(), "near": gr.skip()}
        for found, _ in near_to(code, table):
            yield True, *(shown | {"near": found}).values(), gr.skip()
        for found in models.ask("look_inside", name, training=model.curves, folder=folder):
            yield True, *(shown | found).values(), gr.skip()

    def clicked(event: SelectData) -> int:
        return code_at(model.codes, *event.index)

    tab.select(told(look, 5), [drawn, code, space], [drawn, chart, norms, training, near, status], **QUEUE)
    chart.select(clicked, None, code, **NOW)
    gr.on([code.change, space.change], told(near_to, 1), [code, space], [near, status], **QUEUE)
