"""Arrays on disk, written chunk by chunk to a Zarr v3 group; writing can be resumed at any time.

The attributes of the group, in `zarr.json`, say what it holds; opening it to write something else
is refused (`groups`). Each chunk of an array is a file that is written whole, then renamed
(`arrays`). What is missing, altered or in another place is found (`chunks`), and written again.
"""

from jist.store.arrays import StoredRows, check_whole, create_array, open_array, read, write
from jist.store.chunks import chunks_to_write, finish_group
from jist.store.groups import StoreError, open_group, read_attributes, versions, write_attributes

__all__ = [
    "StoreError",
    "StoredRows",
    "check_whole",
    "chunks_to_write",
    "create_array",
    "finish_group",
    "open_array",
    "open_group",
    "read",
    "read_attributes",
    "versions",
    "write",
    "write_attributes",
]
