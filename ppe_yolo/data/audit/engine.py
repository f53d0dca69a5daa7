"""Checks many images: from the cache where possible, else on all cores. The result does not depend on the number of workers."""

import gc
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process, get_context
from pathlib import Path

import cv2
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ppe_yolo.core.cores import available_cores
from ppe_yolo.data.audit.check_cache import CheckCache, KeptCheck, file_state
from ppe_yolo.data.audit.image_check import ImageCheck, check_image, hash_content, read_file
from ppe_yolo.data.images import ImageError, cache_folder, cached_path, is_url, local_path

PROCESSES_FROM = 500  # images; for fewer, starting processes takes longer than it saves
DOWNLOADS = 8  # at once, whatever the number of cores
_CHUNK = 16  # images that a worker checks at a time
_STORE_EVERY = 5.0  # seconds; an interrupted audit resumes from there
_LOCKS = 256

Checked = ImageCheck | ImageError
_Result = tuple[str, str, Checked]  # image, state of its file, result
_log = logging.getLogger(__name__)


def check_images(
    images: Iterable[str],
    *,
    supplied: Mapping[str, ImageCheck] | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> dict[str, Checked]:
    """Checks images, each once.

    Results are kept in the user's cache folder, see `check_cache`. If another process is checking the same images, this one
    waits and reads its results: one rank of a training works, the others wait.

    Args:
        images: Paths or URLs.
        supplied: Results that are known already: hash of the content -> result.
        progress: Whether to show a progress bar on standard error.
        workers: Number of processes; by default the cores that this process may use.

    Returns:
        Image -> the result, or why the image cannot be used.
    """
    # a worker that imports a script without `if __name__ == "__main__"` comes here again: it must not wait for its parent
    if getattr(current_process(), "_inheriting", False):
        raise RuntimeError('the audit starts processes: put the script behind `if __name__ == "__main__":`')
    wanted = list(dict.fromkeys(images))
    folder = cache_folder() / "audit"
    cache = CheckCache(folder / "checks-1.sqlite")
    try:
        done = _find(cache, wanted)
        if len(done) < len(wanted):
            with _only_one(folder, wanted):
                done |= _find(cache, [image for image in wanted if image not in done])
                missing = [image for image in wanted if image not in done]
                _check(missing, cache, supplied or {}, done, progress, workers or available_cores())
    finally:
        cache.close()
    return {image: done[image] for image in wanted}


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pauses the garbage collector. Otherwise it would scan millions of long-lived objects repeatedly.

    Not for code that decodes images: a cycle could keep one alive.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@paused_collector()
def _find(cache: CheckCache, images: Sequence[str]) -> dict[str, Checked]:
    """The kept results of files that have not changed."""
    path_of = {image: _key(image) for image in images}
    kept = cache.find(path_of.values())
    found: dict[str, Checked] = {}
    for image, path in path_of.items():
        state = file_state(path) if path in kept else ""
        if state and kept[path].state == state:
            found[image] = kept[path].check
    cache.mark_used(path_of[image] for image in found)
    return found


def _key(image: str) -> str:
    if image.startswith("/"):  # nearly all images
        return image
    return str(cached_path(image).absolute())


@contextmanager
def _only_one(folder: Path, images: Sequence[str]) -> Iterator[None]:
    """Lets one process at a time check these images. Without a folder to write to, all of them do."""
    digest = hashlib.blake2b("\n".join(images).encode(errors="surrogateescape"), digest_size=8).digest()
    lock = FileLock(folder / f"{int.from_bytes(digest, 'big') % _LOCKS:03d}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("waiting for another process that checks the same images")
        lock.acquire()
    except (OSError, NotImplementedError):  # the cache has logged why
        pass
    try:
        yield
    finally:
        lock.release()


def _check(
    images: Sequence[str],
    cache: CheckCache,
    supplied: Mapping[str, ImageCheck],
    done: dict[str, Checked],
    progress: bool,
    workers: int,
) -> None:
    """Checks images, and adds the results to `done` and to the cache."""
    unsaved: dict[str, KeptCheck] = {}
    saved_at = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not progress,
    ) as bar:
        task = bar.add_task("checking images", total=len(images), rate="")
        for image, state, result in _results(images, cache, supplied, workers):
            done[image] = result
            if isinstance(result, ImageCheck):
                unsaved[_key(image)] = KeptCheck(state, result)
            if time.monotonic() - saved_at > _STORE_EVERY:
                cache.store(unsaved)
                unsaved.clear()
                saved_at = time.monotonic()
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.0f} images/s" if speed else "")
    if unsaved:
        cache.store(unsaved)


def _results(images: Sequence[str], cache: CheckCache, supplied: Mapping[str, ImageCheck], workers: int) -> Iterator[_Result]:
    """Image, state of its file, and result, in the order in which the workers finish."""
    worker = _Worker(cache, supplied)
    if any(is_url(image) for image in images):
        workers = DOWNLOADS
    elif len(images) >= PROCESSES_FROM and workers > 1:
        left = dict.fromkeys(images)
        try:
            # spawned, not forked: a fork would share the threads of torch
            with ProcessPoolExecutor(workers, get_context("spawn"), _start, (str(cache.file), dict(supplied))) as pool:
                for result in _run(pool, _check_in_process, images):
                    del left[result[0]]
                    yield result
            return
        except BrokenProcessPool:  # killed, or started from a script without `if __name__ == "__main__"`
            _log.warning("a process of the audit ended: checking the remaining images in this one")
            images = list(left)
    with ThreadPoolExecutor(workers) as threads:
        yield from _run(threads, worker.check, images)


def _run(pool: Executor, check: Callable[[Sequence[str]], list[_Result]], images: Sequence[str]) -> Iterator[_Result]:
    futures = [pool.submit(check, images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)]
    try:
        for future in as_completed(futures):
            yield from future.result()
    finally:
        for future in futures:
            future.cancel()  # after Ctrl-C


class _Worker:
    """Checks images that have no kept result for their path.

    Args:
        cache: The user's cache.
        supplied: See `check_images`.
    """

    def __init__(self, cache: CheckCache, supplied: Mapping[str, ImageCheck]) -> None:
        self.cache, self.supplied = cache, supplied

    def check(self, images: Sequence[str]) -> list[_Result]:
        return [self._check(image) for image in images]

    def _check(self, image: str) -> _Result:
        try:
            state = file_state(local_path(image))
            data = read_file(image)
            content = hash_content(data)
            kept = self.supplied.get(content) or self.cache.find_content(content)
            return image, state, kept or check_image(image, data)
        except ImageError as error:
            return image, "", error


_worker: _Worker | None = None  # of a worker process


def _start(cache_file: str, supplied: Mapping[str, ImageCheck]) -> None:
    global _worker
    cv2.setNumThreads(1)  # there is a process for each core
    _worker = _Worker(CheckCache(Path(cache_file)), supplied)


def _check_in_process(images: Sequence[str]) -> list[_Result]:
    if _worker is None:
        raise RuntimeError("the process was not initialized")
    return _worker.check(images)
