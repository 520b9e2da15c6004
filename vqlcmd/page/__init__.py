"""A page in the browser: sample, paint, compare, and look inside of models. `browser` needs the extra `page`."""
