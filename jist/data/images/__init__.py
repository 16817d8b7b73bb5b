"""Image data sets: images found, decoded and resized with their missing regions, in batches.

Sources of images: `folder`, `unlabelled`, `digits`, `cifar10`, `scenes`, `prepared`, `masked`.
`decoding` reads and resizes one image, `missing` reads and resizes its missing regions, `natural`
and `clouds` define natural and simulated masks, `pipeline` decodes batches in parallel.
"""
