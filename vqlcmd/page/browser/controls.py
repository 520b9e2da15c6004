"""Controls for how a model samples, built from the settings that its method declares."""

import secrets
from collections.abc import Sequence
from typing import Any

from vqlcmd.page.browser.events import NOW
from vqlcmd.page.browser.toolkit import gr
from vqlcmd.page.description import Description, Setting

SEEDS = 2**32 - 1
LONGEST = 1000
"""The greatest upper end of a slider; a setting with a greater one is typed as a number."""


class Controls:
    """Controls for count, class, settings and seed.

    Events take `components` as inputs; `read` interprets their values.
    """

    def __init__(self, model: Description, *, what: str, usual: int, most: int, nothing: str, opened: bool = True):
        """`what` names the things that are counted, and `nothing` the choice of no class, such as "all, in turn"."""
        self.settings = model.settings
        count = gr.Slider(1, most, value=usual, step=1, label=what)
        class_ = gr.Dropdown(
            [(name, number - 1) for number, name in enumerate([nothing, *model.class_names])],
            value=-1,
            label="Class",
            visible=bool(model.class_names),
        )
        self.buttons = gr.Row()
        """A row for the buttons that start and stop."""
        with gr.Accordion("How to sample", open=opened):
            shown = [component(setting) for setting in self.settings]
            seed = gr.Number(model.seed, label="Seed", precision=0, minimum=0, maximum=SEEDS)
            other = gr.Button("Another seed", size="sm")
            self.below = gr.Column()
            """A column for further settings."""
        other.click(lambda: secrets.randbelow(SEEDS), None, seed, **NOW)
        self.components = [count, class_, seed, *shown]

    def read(self, values: Sequence[Any]) -> tuple[int, int | None, dict[str, Any]]:
        """The count; the class, None for no class; and keywords of Generator.sample."""
        count, class_, seed, *rest = values
        how = {"seed": seed} | {setting.name: value for setting, value in zip(self.settings, rest, strict=True)}
        return count, None if class_ < 0 else class_, how


def component(setting: Setting) -> Any:
    """A slider if a setting has two ends, else a number field, a check box or a choice."""
    about = {"label": setting.name.capitalize().replace("_", " "), "info": setting.about or None}
    if setting.choices:
        return gr.Radio(list(setting.choices), value=setting.usual, **about)
    if isinstance(setting.usual, bool):
        return gr.Checkbox(setting.usual, **about)
    whole = isinstance(setting.usual, int)
    if setting.low is None or setting.high is None or setting.high > LONGEST:
        return gr.Number(
            setting.usual, minimum=setting.low, maximum=setting.high, precision=0 if whole else None, **about
        )
    step = 1 if whole else 0.01 if setting.high <= 1 else 0.1
    return gr.Slider(setting.low, setting.high, value=setting.usual, step=step, **about)
