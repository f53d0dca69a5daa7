"""Only one promotion at a time, on a server without files to lock."""

from pathlib import Path

import pytest

from ppe_yolo.core.errors import UserError
from ppe_yolo.gate import lock
from ppe_yolo.gate.lock import NameLease
from ppe_yolo.gate.registry import Registry


def test_name_lease_lets_one_in(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("POLL", 0.01), ("WAIT", 0.1)):
        monkeypatch.setattr(lock, name, seconds)
    first, second = (NameLease(registry._client, "helmet") for _ in range(2))
    waited: list[str] = []
    with lock.hold(first, waited.append) as check:
        refused = pytest.raises(UserError, match=r"another promotion has held the lock helmet\.gate for 0\.1 s")
        with refused, lock.hold(second, waited.append):
            pytest.fail("both got in")
        check()
    with lock.hold(second, waited.append):
        assert registry.versions() == []
    assert waited == ["helmet.gate"]


def test_name_lease_expires_with_its_holder(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, heir = (NameLease(registry._client, "helmet") for _ in range(2))
    assert dead.acquire() and not heir.acquire()
    assert dead.renew()
    monkeypatch.setattr(lock, "LEASE", 0)
    assert not heir.acquire()  # it was renewed after the heir saw it
    assert heir.acquire()
    assert not dead.renew()  # so a holder that wakes up writes nothing more
    dead.release()
    assert heir.renew()


def test_promote_lost_lock_writes_nothing(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/decision.json").write_text("{}")
    lease = NameLease(registry._client, "helmet")
    locked = Registry(registry.uri, "helmet", lease=lease)
    with locked.locked():
        version = locked.register(tmp_path / "files", {})
        registry._client.delete_registered_model("helmet.gate")
        for write in (lambda: locked.promote(version), lambda: locked.register(tmp_path / "files", {})):
            with pytest.raises(UserError, match=r"lost the lock helmet\.gate"):
                write()
    assert [v.tags["stage"] for v in registry.versions()] == ["challenger"]
