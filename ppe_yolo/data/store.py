"""Immutable versions of a data set in a blob store, at any URL that fsspec supports: az://, file://, memory://, ...

At the URL, `<version>/` is a copy of the folder that a job can mount, and `manifests/<version>.json` holds the hash of every
file. A version is named after these hashes, so it never changes. Its manifest is written last, so an interrupted push is
invisible, and a second push uploads what is missing. The content of a store is untrusted input.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import atomic_path
from ppe_yolo.data.images import shown
from ppe_yolo.data.sources.open_source import open_source
from ppe_yolo.data.sources.voc_folder import VocFolder

MANIFESTS = "manifests"
STAGING = ".ppe-yolo"  # folder next to the files, for incomplete ones
SCHEMA = 1
TRIES = 5
AT_ONCE = 8  # parallel transfers; each holds one file in memory
_VERSION = re.compile(r"[0-9a-f]{16}")
_TRANSIENT = (408, 429)  # HTTP 4xx codes that are worth a retry


@dataclass(frozen=True, slots=True, order=True)
class StoredFile:
    """One file: path relative to the folder, with slashes; size in bytes; SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version that is completely in the store.

    Attributes:
        version: 16 hexadecimal digits that depend on paths and hashes.
        created: Time of the push, ISO 8601 in UTC.
        files: The files, in the order of their paths.
    """

    version: str
    created: str
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """Size of all files, bytes."""
        return sum(f.size for f in self.files)


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
            manifests = list(pool.map(self.manifest, [name for name in names if _VERSION.fullmatch(name)]))
        return sorted(manifests, key=lambda m: (m.created, m.version))

    def manifest(self, version: str) -> Manifest:
        """Reads and checks the manifest of a version.

        Raises:
            UserError: There is no such version, or the manifest was not written by `push`.
        """
        where = f"{self.shown.rstrip('/')}/{MANIFESTS}/{version}.json"
        try:
            if not _VERSION.fullmatch(version):
                raise FileNotFoundError
            data = self._call(self._fs.cat_file, f"{self._root}/{MANIFESTS}/{version}.json")
        except FileNotFoundError:
            raise UserError("no such version", file=where, hint=f"see `ppe-yolo data list {self.shown}`") from None
        return parse_manifest(data, version, where)

    def push(self, folder: Path, console: Console | None = None) -> Transfer:
        """Uploads a Pascal VOC folder as a version. Files that are already in the store are not uploaded again.

        Args:
            folder: The folder.
            console: Shows progress; none when None.

        Raises:
            UserError: Not a Pascal VOC folder, a file changes during the push, or the store cannot be written.
        """
        if not isinstance(open_source(folder), VocFolder):
            raise UserError(
                file=folder, expected="a Pascal VOC folder", got="annotation lists, whose images are stored elsewhere"
            )
        files = list_files(folder)
        version = version_of(files)
        if not self._call(self._fs.exists, self._root):
            self._call(self._fs.mkdir, self._root)  # on Azure, this creates the container, too
        known = f"{version}.json" in self._listing(MANIFESTS)
        present = self._listing(version)
        missing = [f for f in files if present.get(f.path) != f.size]

        def send(file: StoredFile) -> None:
            data = _read(folder / file.path)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise UserError("the file changed during the push", file=folder / file.path, hint="push again")
            self._write(f"{version}/{file.path}", data)

        _in_parallel(send, missing, "uploading", console)
        if known:  # files that were lost since then are back now
            return Transfer(self.manifest(version), len(missing), sum(f.size for f in missing))
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
        if version is not None:
            manifest = self.manifest(version)
        else:
            versions = self.versions()
            if not versions:
                raise UserError(
                    file=self.shown,
                    expected="a version of a data set",
                    got="none",
                    hint="create one with `ppe-yolo data push`",
                )
            manifest = versions[-1]
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


def list_files(folder: Path) -> list[StoredFile]:
    """All files of a folder with their hashes, in the order of their paths. Hidden files and folders are left out.

    Raises:
        UserError: There is a link to a folder, or a file that cannot be read.
    """
    paths: list[Path] = []
    for above, folders, names in os.walk(folder):
        for name in folders:
            if (Path(above) / name).is_symlink():
                raise UserError(
                    file=Path(above) / name,
                    expected="a folder",
                    got="a link to a folder",
                    hint="replace the link by the folder",
                )
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(above) / name for name in names if not name.startswith(".")]

    def describe(path: Path) -> StoredFile:
        data = _read(path)
        return StoredFile(path.relative_to(folder).as_posix(), len(data), hashlib.sha256(data).hexdigest())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sorted(pool.map(describe, paths))


def version_of(files: Iterable[StoredFile]) -> str:
    """Name of a version: 16 hexadecimal digits that depend on paths and hashes."""
    lines = [f"{f.sha256} {f.size} {f.path}\n" for f in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def parse_manifest(data: bytes, version: str, where: str) -> Manifest:
    """Reads a manifest. It is untrusted input.

    Args:
        data: Content of the manifest.
        version: The version that it is for.
        where: Its location, for messages.

    Raises:
        UserError: It was not written by `push`, belongs to another version, or has a path that leads out of the folder.
    """
    try:
        content = json.loads(data)
        if content["schema"] != SCHEMA:
            raise UserError(
                file=where,
                expected=f"schema {SCHEMA}",
                got=repr(content["schema"]),
                hint="it was written by a newer ppe-yolo",
            )
        files = tuple(StoredFile(f["path"], f["size"], f["sha256"]) for f in content["files"])
        created = datetime.fromisoformat(content["created"]).isoformat()
        is_valid = all(type(f.path) is str and type(f.size) is int and f.size >= 0 and type(f.sha256) is str for f in files)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            file=where, expected="a manifest written by `ppe-yolo data push`", got=f"something else ({error!r:.80})"
        ) from None
    for file in files if is_valid else ():
        if not is_safe(file.path):
            raise UserError(f"the path {file.path!r} leads out of the folder", file=where, hint="do not use this store")
    if not is_valid or len({f.path for f in files}) != len(files) or version_of(files) != version:
        raise UserError("the content does not belong to this version: it was changed after the push", file=where)
    return Manifest(version, created, files)


def is_safe(path: str) -> bool:
    """Whether a relative path stays inside its folder on any operating system, and is in canonical form."""
    parts = path.split("/")
    odd = "\\" in path or "\0" in path or bool(PureWindowsPath(path).drive)
    return not odd and all(part not in ("", "..") and not part.startswith(".") for part in parts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", file=path) from error


def _place(data: bytes, path: Path, staging: Path) -> None:
    """Writes a file atomically. An interruption leaves its part in the staging folder, where nothing takes it for an image."""
    part = staging / uuid.uuid4().hex
    with atomic_path(part) as temporary:
        temporary.write_bytes(data)
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
