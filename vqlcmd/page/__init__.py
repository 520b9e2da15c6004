"""A page in the browser: sample, paint, compare, and look inside of models.

`models` is the process that has PyTorch and the models, `browser` the one that has Gradio, which the extra `page`
brings. What both know is beside them, and needs neither.
"""
