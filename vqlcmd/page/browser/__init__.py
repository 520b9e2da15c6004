"""What the visitor sees and presses, in Gradio: a module for each tab. What they do is beside this folder."""
