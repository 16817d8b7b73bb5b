"""Images: found, decoded, resized, with what they lack, in batches.

In the order in which they pass: `folder`, `unlabelled`, `digits`, `cifar10`, `scenes`, `prepared`
and `masked` say where they come from, `decoding` reads and resizes one, `missing` its missing
regions, `natural` and `clouds` say where those come from, `pipeline` does it for many in parallel.
"""
