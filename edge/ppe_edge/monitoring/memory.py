"""Memory of the C library that is no longer needed."""

import contextlib
import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_THRESHOLD = 256 << 10  # bytes; images are larger
_HEAPS = 2


def limit_heaps() -> None:
    """Makes glibc return the memory of freed images to the system at once, and share few heaps between all threads.

    Does nothing with other C libraries. By default, after the first freed image, glibc serves later ones from its heaps, of
    which it makes eight per core. Threads come and go with the cameras' connections, what they leave remains in between, and
    the heaps grow for hours. Call this before starting threads.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
        mallopt(_M_ARENA_MAX, _HEAPS)
