"""Image data sets: images found, decoded and resized with their missing regions, in batches.

Sources of images: `folder`, `unlabelled`, `digits`, `cifar10`, `scenes`, `prepared`, `masked`.
`walk` finds image files and `layout` the classes of a folder; `decoding` reads and resizes one
image, `pixels` knows what values a file may hold, `missing` reads and resizes an image's missing
regions, `natural` and `clouds` define natural and simulated masks, `pipeline` decodes batches in
parallel. Of GeoTIFFs `bands` reads the bands, `band_values` finds their scale, `tiles` cuts scenes
that are larger than memory, and `synthetic_scenes` invents some.
"""
