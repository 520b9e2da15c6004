"""The tab Compare: several models, or several values of one setting, with the same noise, one per row."""

from collections.abc import Iterator, Mapping
from typing import Any

from vqlcmd.page.browser.controls import SEEDS
from vqlcmd.page.browser.events import job
from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.description import Description, names_of_settings
from vqlcmd.page.jobs import Jobs
from vqlcmd.page.process import Models

MOST, USUAL = 16, 10
NOTHING = "nothing"
SUGGESTED = {"guidance": "0, 1, 2, 4", "steps": "5, 10, 25, 50"}
"""Values to begin with. With one model, the first of these settings that it has is varied at first."""


def compare_tab(described: Mapping[str, Description], models: Models, jobs: Jobs) -> None:
    """Builds the tab: controls above, rows of images below."""
    first, *others = described.values()
    shared = [name for name in first.class_names if all(name in each.class_names for each in others)]
    names = names_of_settings(described.values())
    vary = NOTHING if others else next((name for name in SUGGESTED if name in names), NOTHING)
    chosen = gr.CheckboxGroup(list(described), value=list(described), label="Models", visible=bool(others))
    with gr.Row(equal_height=True):
        what = gr.Dropdown([NOTHING, *names], value=vary, label="What varies", filterable=False)
        values = gr.Textbox(SUGGESTED.get(vary, ""), label="Values, by commas")
        class_ = gr.Dropdown([("all, in turn", ""), *shared], value="", label="Class", visible=bool(shared))
        count = gr.Slider(1, MOST, value=USUAL, step=1, label="Images")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=SEEDS)
    buttons = gr.Row()
    status = gr.Markdown(
        "The rows start from the same noise, image by image. What does not vary is as in training.",
        elem_classes="status",
    )
    shown = gr.HTML()

    def compare(
        request: Request, chosen: list[str], what: str, values: str, class_: str, count: int, seed: int
    ) -> Iterator[Any]:
        yield from models.ask(
            "compare",
            stopped=jobs.stopped(request.session_hash),
            chosen=chosen,
            vary=None if what == NOTHING else what,
            values=values,
            class_=class_,
            count=count,
            seed=seed,
        )

    with buttons:
        job(jobs, "Compare", compare, [chosen, what, values, class_, count, seed], [shown], status)
    what.change(lambda name: SUGGESTED.get(name, ""), what, values, queue=False, show_progress="hidden")
