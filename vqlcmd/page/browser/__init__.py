"""The page that the visitor sees, in Gradio: one module for each tab. It asks `vqlcmd.page.models` for the work."""
