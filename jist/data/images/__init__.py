"""Image data sets: images found, decoded and resized with their missing regions, in batches.

Sources of images: `folder`, `unlabelled`, `digits`, `cifar10`, `scenes`, `prepared`, `masked`.
`walk` finds image files and `layout` the classes of a folder; `decoding` reads and resizes one
image, `pixels` knows what values a file may hold, `bands` reads those of a GeoTIFF, `missing` reads
and resizes an image's missing regions, `natural` and `clouds` define natural and simulated masks,
`pipeline` decodes batches in parallel.
"""
