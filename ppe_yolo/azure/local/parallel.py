"""Runs a parallel job on this machine: `init` and `run` of an entry script, in processes, on mini-batches of files.

An interrupted job resumes: mini-batches whose rows are in the journal are not run again.
"""

import argparse
import importlib.util
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_text

_module: ModuleType | None = None


def run_parallel(
    entry_script: Path,
    data: Path,
    rows: Path,
    journal: Path,
    *,
    mini_batch_size: int,
    workers: int = 1,
    retries: int = 0,
    timeout: int = 0,
    threshold: int = -1,
    arguments: Sequence[str] = (),
) -> int:
    """Runs every mini-batch and writes the rows in the order of the files.

    Args:
        entry_script: A file with `run(mini_batch)`, which returns at least one row per file, and optionally `init()`.
        data: The input folder; all files in it and in its subfolders are processed.
        rows: The output file.
        journal: File that records finished mini-batches; deleted at the end.
        mini_batch_size: Number of files per mini-batch.
        workers: Number of processes.
        retries: How often a failed mini-batch is repeated.
        timeout: Seconds after which `run` fails, as on Azure; 0 for no limit.
        threshold: Number of mini-batches that may fail, -1 for all. The rows of failed mini-batches are missing.
        arguments: The script's `sys.argv[1:]`.

    Returns:
        The number of failed mini-batches.

    Raises:
        UserError: The folder has no files, or more mini-batches failed than `threshold` allows.
    """
    files = sorted(str(p) for p in data.rglob("*") if p.is_file())
    if not files:
        raise UserError(file=data, expected="input files", got="none")
    batches = [files[start : start + mini_batch_size] for start in range(0, len(files), mini_batch_size)]
    done = _read_journal(journal, batches)
    waiting = [n for n in range(len(batches)) if n not in done]
    print(f"{len(files)} files, {len(batches)} mini-batches, {len(done)} already done", flush=True)
    failed: list[int] = []
    # spawned, not forked: a fork would share models and threads that the script holds
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), _start, (str(entry_script), list(arguments))) as pool,
        journal.open("a", encoding="utf-8") as log,
    ):
        futures = {pool.submit(_work, batches[n], retries, timeout): n for n in waiting}
        for future in as_completed(futures):
            number = futures[future]
            if (error := future.exception()) is not None:
                failed.append(number)
                print(f"mini-batch {number} failed: {error!r}", file=sys.stderr, flush=True)
                continue
            done[number] = future.result()
            log.write(json.dumps({"files": batches[number], "rows": done[number]}) + "\n")
            log.flush()
            print(f"mini-batch {number}: {len(done[number])} rows", flush=True)
    if 0 <= threshold < len(failed):
        raise UserError(f"{len(failed)} of {len(batches)} mini-batches failed, {threshold} allowed: see the errors above")
    write_text(rows, "".join(f"{row}\n" for number in sorted(done) for row in done[number]))
    journal.unlink()
    return len(failed)


def _read_journal(journal: Path, batches: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    """Rows of the mini-batches that an interrupted run finished. Its last line may be incomplete."""
    numbers = {tuple(files): n for n, files in enumerate(batches)}
    done: dict[int, list[str]] = {}
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.is_file() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # an incomplete line, followed by the lines of a resumed run
            continue
        number = numbers.get(tuple(entry["files"]))
        if number is not None:
            done[number] = entry["rows"]
    return done


def _start(entry_script: str, arguments: list[str]) -> None:
    """Loads the script in a worker process and calls its `init`."""
    global _module
    sys.argv = [entry_script, *arguments]
    signal.signal(signal.SIGALRM, _expire)
    spec = importlib.util.spec_from_file_location("entry_script", entry_script)
    assert spec is not None and spec.loader is not None
    _module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(_module)
    if hasattr(_module, "init"):
        _module.init()


class _Expired(BaseException):
    """Not an Exception: an entry script that survives bad images would survive it too."""


def _expire(*_: object) -> None:
    raise _Expired


def _work(files: list[str], retries: int, timeout: int) -> list[str]:
    assert _module is not None
    for attempt in range(retries + 1):
        signal.alarm(timeout)
        try:
            rows = [str(row) for row in _module.run(files)]
            if len(rows) < len(files):  # Azure fails such a mini-batch
                raise ValueError(f"run() returned {len(rows)} rows for {len(files)} files, expected at least one per file")
            return rows
        except _Expired:
            if attempt == retries:
                raise TimeoutError("run() took longer than the timeout of a mini-batch") from None
        except Exception:
            if attempt == retries:
                raise
        finally:
            signal.alarm(0)
        time.sleep(0.1)
    raise AssertionError("not reached")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="ppe_yolo.azure.local.parallel")
    for option in ("--entry-script", "--input", "--rows", "--journal"):
        parser.add_argument(option, type=Path, required=True)
    for option in ("--mini-batch-size", "--workers", "--retries", "--timeout", "--threshold"):
        parser.add_argument(option, type=int, required=True)
    parser.add_argument("--arguments", default="")
    given = parser.parse_args()
    try:
        run_parallel(
            given.entry_script,
            given.input,
            given.rows,
            given.journal,
            mini_batch_size=given.mini_batch_size,
            workers=given.workers,
            retries=given.retries,
            timeout=given.timeout,
            threshold=given.threshold,
            arguments=shlex.split(given.arguments),
        )
    except UserError as error:
        print(f"ppe-yolo: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    _main()
