"""Immutable versions of a data set in a blob store, at any URL that fsspec supports: az://, file://, memory://, ...

At the URL, `<version>/` is a copy of the folder that a job can mount, and `manifests/<version>.json` holds the hash of every
file. A version is named after these hashes, so it never changes. Its manifest is written last, so an interrupted push is
invisible, and a second push uploads what is missing. The content of a store is untrusted input.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_bytes
from ppe_yolo.data.images import shown
from ppe_yolo.data.sources.annotation_list import AnnotationLists
from ppe_yolo.data.sources.files import require_outside
from ppe_yolo.data.sources.open_source import open_source
from ppe_yolo.data.store.manifest import (
    AT_ONCE,
    SCHEMA,
    VERSION,
    Manifest,
    StoredFile,
    list_files,
    parse_manifest,
    read_bytes,
    version_of,
)

MANIFESTS = "manifests"
STAGING = ".ppe-yolo"  # folder next to the files, for incomplete ones
TRIES = 5
_TRANSIENT = (408, 429)  # HTTP 4xx codes that are worth a retry


@dataclass(frozen=True, slots=True)
class Transfer:
    """A version, and the number and size (bytes) of the files that were transferred."""

    manifest: Manifest
    moved: int
    moved_bytes: int


class Store:
    """A store of versions.

    Args:
        url: URL such as az://container/helmets, or a local folder. Access to Azure uses Azure's variables
            (AZURE_STORAGE_ACCOUNT_NAME and _KEY or _SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING) or the machine's identity.

    Raises:
        UserError: The protocol is not supported, or the URL contains a secret.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown(url)
        if "?" in url:
            raise UserError(
                "a query may contain a secret that others can see",
                file=self.shown,
                expected="a URL without a query",
                hint="use AZURE_STORAGE_SAS_TOKEN",
            )
        try:
            self._fs: AbstractFileSystem
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"cannot be opened ({type(error).__name__})",
                file=self.shown,
                hint="az:// needs pip install 'ppe-yolo[blob]' and AZURE_STORAGE_ACCOUNT_NAME or "
                "AZURE_STORAGE_CONNECTION_STRING",
            ) from None
        self._root = root.rstrip("/")

    def versions(self) -> list[Manifest]:
        """All complete versions, oldest first.

        Raises:
            UserError: The store cannot be reached, or a manifest is not valid.
        """
        names = [path.removesuffix(".json") for path in self._listing(MANIFESTS) if path.endswith(".json")]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            manifests = list(pool.map(self.manifest, [name for name in names if VERSION.fullmatch(name)]))
        return sorted(manifests, key=lambda m: (m.created, m.version))

    def manifest(self, version: str) -> Manifest:
        """Reads and checks the manifest of a version.

        Raises:
            UserError: There is no such version, or the manifest was not written by `push`.
        """
        where = f"{self.shown.rstrip('/')}/{MANIFESTS}/{version}.json"
        try:
            if not VERSION.fullmatch(version):
                raise FileNotFoundError
            data = self._call(self._fs.cat_file, f"{self._root}/{MANIFESTS}/{version}.json")
        except FileNotFoundError:
            raise UserError("no such version", file=where, hint=f"see `ppe-yolo data list {self.shown}`") from None
        return parse_manifest(data, version, where)

    def push(self, folder: Path, console: Console | None = None) -> Transfer:
        """Uploads a data set as a version. Files that are already in the store are not uploaded again.

        Args:
            folder: The folder.
            console: Shows progress; none when None.

        Raises:
            UserError: Not a folder with images and annotations, a file changes during the push, or the store lies in the folder
                or cannot be written.
        """
        if isinstance(open_source(folder), AnnotationLists):
            raise UserError(
                file=folder,
                expected="a folder that holds its images",
                got="annotation lists, whose images are stored elsewhere",
            )
        if isinstance(self._fs, LocalFileSystem):
            require_outside(Path(self._root), folder, setting=None)  # each version would contain the earlier ones
        files = list_files(folder)
        version = version_of(files)
        if not self._call(self._fs.exists, self._root):
            self._call(self._fs.mkdir, self._root)  # on Azure, this creates the container, too
        known = f"{version}.json" in self._listing(MANIFESTS)
        present = self._listing(version)
        missing = [f for f in files if present.get(f.path) != f.size]

        def send(file: StoredFile) -> None:
            data = read_bytes(folder / file.path)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise UserError("the file changed during the push", file=folder / file.path, hint="push again")
            self._write(f"{version}/{file.path}", data)

        _in_parallel(send, missing, "uploading", console)
        if known:  # files that were lost since then are back now
            manifest = self.manifest(version)
        else:
            manifest = Manifest(version, datetime.now(UTC).isoformat(), tuple(files))
            self._write(f"{MANIFESTS}/{version}.json", json.dumps({"schema": SCHEMA, **asdict(manifest)}, indent=1).encode())
        return Transfer(manifest, len(missing), sum(f.size for f in missing))

    def pull(self, folder: Path, version: str | None = None, console: Console | None = None) -> Transfer:
        """Downloads a version into a folder. Files that are already in the folder are not downloaded again.

        Args:
            folder: A new or empty folder, or one with files of this version only.
            version: The version; None for the newest.
            console: Shows progress; none when None.

        Raises:
            UserError: There is no such version, a file in the store is damaged, or the folder has other content.
        """
        manifest = self._newest() if version is None else self.manifest(version)
        present = {f.path: f for f in list_files(folder)} if folder.exists() else {}
        wanted = {f.path: f for f in manifest.files}
        foreign = sorted(path for path, file in present.items() if wanted.get(path) != file)
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise UserError(
                f"differs from version {manifest.version}",
                file=f"{folder / foreign[0]}{more}",
                hint="pull into an empty folder",
            )
        missing = [f for f in manifest.files if f.path not in present]

        def fetch(file: StoredFile) -> None:
            where = f"{self.shown.rstrip('/')}/{manifest.version}/{file.path}"
            try:
                data = self._call(self._fs.cat_file, f"{self._root}/{manifest.version}/{file.path}")
            except FileNotFoundError:
                raise UserError("missing in the store", file=where, hint="push the folder again") from None
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise UserError(
                    "damaged in the store (SHA-256 differs)",
                    file=where,
                    hint="remove the file from the store, and push the folder again",
                )
            _place(data, folder / file.path, folder / STAGING)

        _in_parallel(fetch, missing, "downloading", console)
        shutil.rmtree(folder / STAGING, ignore_errors=True)
        return Transfer(manifest, len(missing), sum(f.size for f in missing))

    def _newest(self) -> Manifest:
        versions = self.versions()
        if not versions:
            hint = "create one with `ppe-yolo data push`"
            raise UserError(file=self.shown, expected="a version of a data set", got="none", hint=hint)
        return versions[-1]

    def _listing(self, folder: str) -> dict[str, int]:
        """Path relative to a folder of the store -> size in bytes. Empty if there is no such folder."""
        above = f"{self._root}/{folder}/"
        try:
            listing = self._call(self._fs.find, above, detail=True)
        except FileNotFoundError:
            return {}
        return {name.removeprefix(above): int(info["size"]) for name, info in listing.items() if name.startswith(above)}

    def _write(self, path: str, data: bytes) -> None:
        full = f"{self._root}/{path}"
        if not isinstance(self._fs, LocalFileSystem):
            self._call(self._fs.pipe_file, full, data)  # blobs are written atomically
            return
        _place(data, Path(full), Path(self._root) / STAGING)

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls the store, with retries for transient errors. FileNotFoundError is left to the caller."""
        try:
            return _with_retries(function, *arguments, **options)
        except FileNotFoundError:
            raise
        except Exception as error:  # each protocol raises its own types; messages may contain keys and signatures
            code = getattr(error, "error_code", None) or getattr(error, "strerror", None)
            reason = f"{type(error).__name__}: {getattr(code, 'value', code)}" if code else type(error).__name__
            raise UserError(
                f"the store failed ({reason})",
                file=self.shown,
                hint="check the address and your access, and run the command again",
            ) from None


def _is_transient(error: BaseException) -> bool:
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in _TRANSIENT
    files = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
    permanent = (*files, NotImplementedError, ValueError, TypeError)
    return isinstance(error, Exception) and not isinstance(error, permanent)


@retry(
    retry=retry_if_exception(_is_transient),
    stop=stop_after_attempt(TRIES),
    wait=wait_random_exponential(multiplier=0.5, max=20),
    reraise=True,
)
def _with_retries(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)


def _place(data: bytes, path: Path, staging: Path) -> None:
    """Writes a file atomically. An interruption leaves its part in the staging folder, where nothing takes it for an image."""
    part = staging / uuid.uuid4().hex
    write_bytes(part, data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", file=path) from error


def _in_parallel(move: Callable[[StoredFile], None], files: Sequence[StoredFile], verb: str, console: Console | None) -> None:
    """Transfers files in parallel. After the first failure, no further transfer starts."""
    columns = (TextColumn(verb), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=console is None or not console.is_terminal) as progress,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        task = progress.add_task(verb, total=sum(f.size for f in files))
        transfers = {pool.submit(move, file): file for file in files}
        try:
            for done in as_completed(transfers):
                done.result()
                progress.advance(task, transfers[done].size)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
