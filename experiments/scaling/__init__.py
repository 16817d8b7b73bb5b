"""Cost as the work grows, measured and drawn: `python -m experiments.scaling`.

Modules: `clock` times variants in turns and fits lines, `features` extracts ever more images,
`rounds` trains wider networks, with more workers and for more local steps, `largest` counts what a
device must hold, `picture` draws.
"""
