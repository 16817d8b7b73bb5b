"""Benchmarks beside PyTorch and beside the hardware: `python -m experiments.bench`."""
