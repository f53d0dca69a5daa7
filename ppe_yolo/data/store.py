"""Versions of a data set in a blob store, behind any address of fsspec: az://, file://, memory://, ...

Below the address lie `<version>/`, the folder as it is, so that a job can mount it, and `manifests/<version>.json` with the
hash of every file. A version is named after these hashes, so it never changes; its manifest is written last, so a push that was
stopped is not seen, and goes on with what is missing when it is started again. What comes from a store is not trusted.
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
from ppe_yolo.data.sources.source import VocFolder, open_source

MANIFESTS = "manifests"
STAGING = ".ppe-yolo"  # beside the files, for those that are not whole yet
SCHEMA = 1
TRIES = 5
AT_ONCE = 8  # transfers; each holds one file in memory
_VERSION = re.compile(r"[0-9a-f]{16}")
_PASSING = (408, 429)  # of HTTP's 4xx, those that go away by themselves


@dataclass(frozen=True, slots=True, order=True)
class StoredFile:
    """One file: its path with slashes, below the folder; size in bytes; SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version, all of whose files are in the store.

    Attributes:
        version: 16 hexadecimal digits that follow from paths and hashes.
        created: When it was pushed, ISO 8601 in UTC.
        files: In the order of their paths.
    """

    version: str
    created: str
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """Of all files, bytes."""
        return sum(f.size for f in self.files)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A version, and how much of it had to travel."""

    manifest: Manifest
    moved: int
    moved_bytes: int


class Store:
    """A place for versions.

    Args:
        url: Such as az://container/helmets; a path is a folder here. Access to Azure comes from its own variables
            (AZURE_STORAGE_ACCOUNT_NAME and _KEY or _SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING) or the machine's identity.

    Raises:
        UserError: No such protocol, or a secret in the address.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown(url)
        if "?" in url:
            raise UserError(
                f"{self.shown}: expected an address without a query, which others can see: use AZURE_STORAGE_SAS_TOKEN"
            )
        try:
            self._fs: AbstractFileSystem
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{self.shown}: cannot be opened ({type(error).__name__}): az:// needs pip install 'ppe-yolo[blob]' and "
                "AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING"
            ) from None
        self._root = root.rstrip("/")

    def versions(self) -> list[Manifest]:
        """Those that are whole, the oldest first.

        Raises:
            UserError: The store cannot be reached, or a manifest is none.
        """
        names = [path.removesuffix(".json") for path in self._listing(MANIFESTS) if path.endswith(".json")]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(self.manifest, [name for name in names if _VERSION.fullmatch(name)]))
        return sorted(found, key=lambda m: (m.created, m.version))

    def manifest(self, version: str) -> Manifest:
        """Reads and checks one.

        Raises:
            UserError: No such version, or not what `push` wrote.
        """
        where = f"{self.shown.rstrip('/')}/{MANIFESTS}/{version}.json"
        try:
            if not _VERSION.fullmatch(version):
                raise FileNotFoundError
            data = self._call(self._fs.cat_file, f"{self._root}/{MANIFESTS}/{version}.json")
        except FileNotFoundError:
            raise UserError(f"{where}: no such version: `ppe-yolo data list {self.shown}` shows them") from None
        return parse_manifest(data, version, where)

    def push(self, folder: Path, console: Console | None = None) -> Transfer:
        """Stores a Pascal VOC folder as a version; what is there already is not sent again.

        Raises:
            UserError: Not such a folder, it changes meanwhile, or the store cannot be written.
        """
        if not isinstance(open_source(folder), VocFolder):
            raise UserError(f"{folder}: expected a Pascal VOC folder, got annotation lists, whose photos lie elsewhere")
        files = list_files(folder)
        version = version_of(files)
        if not self._call(self._fs.exists, self._root):
            self._call(self._fs.mkdir, self._root)  # which is the container, too, on Azure
        known = f"{version}.json" in self._listing(MANIFESTS)
        present = self._listing(version)
        missing = [f for f in files if present.get(f.path) != f.size]

        def send(file: StoredFile) -> None:
            data = _read(folder / file.path)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise UserError(f"{folder / file.path}: has changed since the push began: push again")
            self._write(f"{version}/{file.path}", data)

        _in_parallel(send, missing, "sending", console)
        if known:  # what was lost since is back
            return Transfer(self.manifest(version), len(missing), sum(f.size for f in missing))
        manifest = Manifest(version, datetime.now(UTC).isoformat(), tuple(files))
        self._write(f"{MANIFESTS}/{version}.json", json.dumps({"schema": SCHEMA, **asdict(manifest)}, indent=1).encode())
        return Transfer(manifest, len(missing), sum(f.size for f in missing))

    def pull(self, folder: Path, version: str | None = None, console: Console | None = None) -> Transfer:
        """Makes a folder hold exactly a version, the newest if none is given; what is there already is not fetched again.

        Raises:
            UserError: No such version, a file is damaged in the store, or the folder holds something else.
        """
        if version is not None:
            manifest = self.manifest(version)
        else:
            versions = self.versions()
            if not versions:
                raise UserError(f"{self.shown}: expected a version of a data set, got none: `ppe-yolo data push` makes one")
            manifest = versions[-1]
        present = {f.path: f for f in list_files(folder)} if folder.exists() else {}
        wanted = {f.path: f for f in manifest.files}
        foreign = sorted(path for path, file in present.items() if wanted.get(path) != file)
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise UserError(f"{folder / foreign[0]}{more}: not as in version {manifest.version}: pull into an empty folder")
        missing = [f for f in manifest.files if f.path not in present]

        def fetch(file: StoredFile) -> None:
            where = f"{self.shown.rstrip('/')}/{manifest.version}/{file.path}"
            try:
                data = self._call(self._fs.cat_file, f"{self._root}/{manifest.version}/{file.path}")
            except FileNotFoundError:
                raise UserError(f"{where}: is missing in the store: push the folder again") from None
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise UserError(f"{where}: damaged in the store (SHA-256 differs): remove it there, and push the folder again")
            _place(data, folder / file.path, folder / STAGING)

        _in_parallel(fetch, missing, "fetching", console)
        shutil.rmtree(folder / STAGING, ignore_errors=True)
        return Transfer(manifest, len(missing), sum(f.size for f in missing))

    def _listing(self, folder: str) -> dict[str, int]:
        """Path below that folder of the store -> bytes; empty where there is no such folder."""
        above = f"{self._root}/{folder}/"
        try:
            found = self._call(self._fs.find, above, detail=True)
        except FileNotFoundError:
            return {}
        return {name.removeprefix(above): int(info["size"]) for name, info in found.items() if name.startswith(above)}

    def _write(self, path: str, data: bytes) -> None:
        full = f"{self._root}/{path}"
        if not isinstance(self._fs, LocalFileSystem):
            self._call(self._fs.pipe_file, full, data)  # a blob is there as a whole or not at all
            return
        _place(data, Path(full), Path(self._root) / STAGING)

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """A call to the store, tried again where it may help; FileNotFoundError is for the caller."""
        try:
            return _tried_again(function, *arguments, **options)
        except FileNotFoundError:
            raise
        except Exception as error:  # every protocol has its own kinds; their messages may hold keys and signatures
            code = getattr(error, "error_code", None) or getattr(error, "strerror", None)
            reason = f"{type(error).__name__}: {getattr(code, 'value', code)}" if code else type(error).__name__
            raise UserError(f"{self.shown}: the store fails ({reason}): check address and access, then start again") from None


def _may_pass(error: BaseException) -> bool:
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in _PASSING
    lasting = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError, NotImplementedError)
    return isinstance(error, Exception) and not isinstance(error, (*lasting, ValueError, TypeError))


@retry(
    retry=retry_if_exception(_may_pass),
    stop=stop_after_attempt(TRIES),
    wait=wait_random_exponential(multiplier=0.5, max=20),
    reraise=True,
)
def _tried_again(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)


def list_files(folder: Path) -> list[StoredFile]:
    """All files of a folder with their hashes, in the order of their paths; names that begin with a dot are left out.

    Raises:
        UserError: A link to a folder, or a file that cannot be read.
    """
    found = []
    for above, folders, names in os.walk(folder):
        for name in folders:
            if (Path(above) / name).is_symlink():
                raise UserError(f"{Path(above) / name}: expected a folder, got a link to one: put the folder itself there")
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(above) / name for name in names if not name.startswith(".")]

    def described(path: Path) -> StoredFile:
        data = _read(path)
        return StoredFile(path.relative_to(folder).as_posix(), len(data), hashlib.sha256(data).hexdigest())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sorted(pool.map(described, found))


def version_of(files: Iterable[StoredFile]) -> str:
    """16 hexadecimal digits that follow from paths and hashes."""
    lines = [f"{f.sha256} {f.size} {f.path}\n" for f in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def parse_manifest(data: bytes, version: str, where: str) -> Manifest:
    """Reads a manifest that anybody may have written.

    Raises:
        UserError: Not one of `push`, not of this version, or with a path that leads out of the folder.
    """
    try:
        content = json.loads(data)
        if content["schema"] != SCHEMA:
            raise UserError(f"{where}: expected schema {SCHEMA}, got {content['schema']!r}: a newer ppe-yolo wrote it")
        files = tuple(StoredFile(f["path"], f["size"], f["sha256"]) for f in content["files"])
        created = datetime.fromisoformat(content["created"]).isoformat()
        sound = all(type(f.path) is str and type(f.size) is int and f.size >= 0 and type(f.sha256) is str for f in files)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{where}: expected a manifest of `ppe-yolo data push`, got something else ({error!r:.80})") from None
    for file in files if sound else ():
        if not is_safe(file.path):
            raise UserError(f"{where}: refused, the path {file.path!r} leads out of the folder: do not use this store")
    if not sound or len({f.path for f in files}) != len(files) or version_of(files) != version:
        raise UserError(f"{where}: its content does not belong to this version: it was changed after the push")
    return Manifest(version, created, files)


def is_safe(path: str) -> bool:
    """Whether a path stays below the folder that it is put into, on any system, and is written in one way only."""
    parts = path.split("/")
    odd = "\\" in path or "\0" in path or bool(PureWindowsPath(path).drive)
    return not odd and all(part not in ("", "..") and not part.startswith(".") for part in parts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _place(data: bytes, path: Path, staging: Path) -> None:
    """Writes a file whole or not at all; what an interruption leaves lies in a folder where nobody takes it for a photo."""
    part = staging / uuid.uuid4().hex
    with atomic_path(part) as temporary:
        temporary.write_bytes(data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def _in_parallel(move: Callable[[StoredFile], None], files: Sequence[StoredFile], verb: str, console: Console | None) -> None:
    """Moves files, several at once; after the first failure no other is begun."""
    columns = (TextColumn(verb), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=console is None or not console.is_terminal) as progress,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        task = progress.add_task(verb, total=sum(f.size for f in files))
        begun = {pool.submit(move, file): file for file in files}
        try:
            for done in as_completed(begun):
                done.result()
                progress.advance(task, begun[done].size)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
