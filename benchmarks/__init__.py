"""How much each part costs beyond what it cannot do without. `make bench` runs all; docs/benchmarks.md explains."""
