"""How a stage runs, never what comes out: errors, files, processes, resumption."""
