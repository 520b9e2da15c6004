"""How the page looks: fonts of the visitor's system, one colour, and small pictures with hard edges."""

from typing import Any

from vqlcmd.page.browser.toolkit import gr

CSS = """
.head h1 { font-size: 1.5rem; margin: 0.4rem 0 0; letter-spacing: -0.01em; }
.head p { color: var(--body-text-color-subdued); margin: 0.1rem 0 0; }
.status { min-height: 1.6rem; }
.wrong { color: var(--color-red-600, #dc2626); }
.gallery { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 10px 8px; }
.gallery figure { margin: 0; text-align: center; }
.gallery img, .comparison img { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 4px; display: block; }
.gallery.small { max-width: calc(var(--columns) * 112px); }
.gallery.small img, .comparison .small img, .pixels img { image-rendering: pixelated; }
.gallery figcaption { font-size: 0.75rem; color: var(--body-text-color-subdued); line-height: 1.5; }
.comparison { display: grid; grid-template-columns: max-content 1fr; gap: 10px 18px; align-items: center; }
.comparison .what { max-width: 14rem; overflow-wrap: anywhere; }
.comparison .what span { display: block; font-size: 0.75rem; color: var(--body-text-color-subdued); }
.comparison .images { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 6px; }
.comparison .small { max-width: calc(var(--columns) * 92px); }
.film img { width: 100%; object-fit: contain; object-position: left; }
footer { display: none !important; }
"""


def theme() -> Any:
    """Gradio's soft theme with plain labels, and without fonts of its own."""
    return gr.themes.Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        spacing_size="sm",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_300",
        block_title_text_weight="500",
        block_title_padding="0",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_label_text_weight="500",
    )
