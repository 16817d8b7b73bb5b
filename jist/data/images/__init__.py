"""Image data sets: images found, decoded and resized with their missing regions, in batches.

Sources of images: `folder`, `unlabelled`, `digits`, `cifar10`, `scenes`, `prepared`, `masked`.
`walk` finds image files and `layout` the classes of a folder; `decoding` reads one image, `pixels`
knows what values a file may hold, `missing` reads an image's missing regions, `resizing` makes both
square, `natural` and `clouds` define natural and simulated masks, `pipeline` decodes batches in
parallel. Of GeoTIFFs `bands` reads the bands, `band_values` finds their scale, `tiles` cuts scenes
that are larger than memory, and `synthetic_scenes` invents some.
"""
