"""Locks that let one promotion in at a time. Each of them dies with its holder."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ppe_yolo.core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAIT = 600.0  # seconds for another promotion to finish
LEASE = 60  # seconds after which the lock of a dead holder expires
RENEW_EVERY = 15.0  # seconds
POLL = 2.0  # seconds between two tries to get the lock
BEAT = "beat"  # tag that the holder of a `NameLease` changes

_log = logging.getLogger(__name__)


class Lease(Protocol):
    """A lock that expires unless it is renewed."""

    @property
    def where(self) -> str:
        """What to show to those who wait."""

    def acquire(self) -> bool:
        """Takes the lock for LEASE seconds; False if another one has it."""

    def renew(self) -> bool:
        """Takes it for another LEASE seconds; False if it has expired and another one may have it."""

    def release(self) -> None:
        """Gives the lock back, if it is still held."""


@contextmanager
def hold(
    lease: Lease, on_wait: Callable[[str], None], explain: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[Callable[[], None]]:
    """Waits for a lease and renews it in the background.

    Args:
        lease: The lease.
        on_wait: Called with its name before waiting for it.
        explain: Turns the errors of its service into a UserError.

    Yields:
        A function to call before each write. It raises a UserError if the lease was lost, such as on a machine that was asleep.

    Raises:
        UserError: Another promotion holds the lease for longer than WAIT.
    """
    _acquire(lease, on_wait, explain)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_EVERY):
            try:
                lease.renew()
            except Exception as error:  # the next renewal may succeed; check() decides before each write
                _log.warning("%s: cannot be renewed (%s)", lease.where, error)

    def check() -> None:
        if not lease.renew():
            raise UserError(
                f"lost the lock {lease.where} to another promotion", setting="registry", hint="run the promotion again"
            )

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        done.set()
        thread.join()
        with explain():
            lease.release()


def _acquire(lease: Lease, on_wait: Callable[[str], None], explain: Callable[[], AbstractContextManager[None]]) -> None:
    deadline = None
    while True:
        with explain():
            if lease.acquire():
                return
        if deadline is None:
            on_wait(lease.where)
            deadline = time.monotonic() + WAIT
        elif time.monotonic() > deadline:
            problem = f"another promotion has held the lock {lease.where} for {WAIT:g} s"
            raise UserError(problem, setting="registry", hint="try again when it is done")
        time.sleep(POLL)


@contextmanager
def hold_file(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock of the operating system on a file, which is released if the process dies.

    Raises:
        UserError: Another promotion holds it for longer than WAIT, or the file cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(str(path))
            lock.acquire(timeout=WAIT)
    except Timeout as error:
        raise UserError(
            f"another promotion has held this lock for {WAIT:g} s", file=path, hint="try again when it is done"
        ) from error
    except OSError as error:
        raise UserError(setting="registry", file=path, problem=f"cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


class NameLease:
    """A registered model NAME.gate on an MLflow server, which creates a name only once.

    The holder changes a tag of it. Others remove it if the tag did not change for LEASE seconds of their own clock, so that
    clocks need not agree.

    Args:
        client: The client.
        name: Name of the model that is promoted.
    """

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self._client = client
        self.where = f"{name}.gate"
        self._holder = f"{os.uname().nodename} {os.getpid()} {uuid.uuid4().hex}"
        self._seen: tuple[str, str] | None = None
        self._since = 0.0

    def acquire(self) -> bool:
        """See `Lease`."""
        if self._create():
            return True
        seen = self._state()
        if seen is None or seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
            return False
        if time.monotonic() - self._since < LEASE:
            return False
        _log.warning("%s: its holder (%s) is gone", self.where, seen[0])
        self._client.delete_registered_model(self.where)
        return self._create()

    def renew(self) -> bool:
        """See `Lease`."""
        state = self._state()
        if state is None or state[0] != self._holder:
            return False
        self._client.set_registered_model_tag(self.where, BEAT, uuid.uuid4().hex)
        return True

    def release(self) -> None:
        """See `Lease`."""
        state = self._state()
        if state is not None and state[0] == self._holder:
            self._client.delete_registered_model(self.where)

    def _state(self) -> tuple[str, str] | None:
        """Holder and beat; None if nobody holds the lock."""
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(self.where)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return str(model.description), str(model.tags.get(BEAT, ""))

    def _create(self) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.where, description=self._holder)
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS":
                return False
            raise
        return True
