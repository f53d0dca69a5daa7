"""What the C library does with the memory of pictures that are no longer needed."""

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_PICTURE = 256 << 10  # bytes


def give_pictures_back() -> None:
    """Has glibc give the memory of every freed picture back at once; elsewhere nothing is done.

    By default it learns from the first freed picture to take later ones from its heaps, of which each thread has one. Readers
    and decoders come and go with their cameras, pictures of all sizes stay in between, and the heaps grow for many minutes. To
    be called before the threads start.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _PICTURE)
