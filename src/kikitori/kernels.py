"""How much memory torch's CPU kernels may keep."""

import os

KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""On the CPU oneDNN keeps kernels with their buffers for the last 1,024 shapes, and speech comes in ever new shapes: a
process would grow by hundreds of megabytes in an hour of speech, one that trains in bfloat16 by gigabytes."""


def limit_kernel_caches() -> None:
    """Keeps the last 64 of each, unless the environment says otherwise; to be called before torch computes anything."""
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, "64")
