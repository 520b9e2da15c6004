"""A page in the browser that samples, paints, compares models, and looks inside them.

`models` is the process with PyTorch and the models, `browser` the one with Gradio, which the extra `page` installs. The
modules beside them are shared, and need neither.
"""
