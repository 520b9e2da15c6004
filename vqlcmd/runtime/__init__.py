"""How a stage runs, not what it computes: errors, files, processes, resumption."""
