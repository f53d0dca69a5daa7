"""Memory of the C library for images that are no longer needed."""

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_THRESHOLD = 256 << 10  # bytes; images are larger


def return_freed_images() -> None:
    """Makes glibc return the memory of freed images to the system at once. Does nothing with other C libraries.

    By default, after the first freed image, glibc serves later ones from its heaps, of which each thread has one. Threads come
    and go with the cameras' connections, images of all sizes remain in between, and the heaps grow for many minutes. Call this
    before starting threads.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
