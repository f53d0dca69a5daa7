"""A full disk and too little memory are one line, whichever library reports them."""

import errno

import pytest
import torch

from ppe_yolo import cli


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "last.ckpt"), "last.ckpt: no space is left: free some, and "),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x", None, "last.ckpt"), "last.ckpt: no space is left"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "there is too little memory: use a smaller "),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), "there is too little memory"),
        (MemoryError(), "there is too little memory"),
    ],
)
def test_shortage_is_one_line(monkeypatch, capsys, error, expected):
    def run(args):
        raise error

    monkeypatch.setattr(cli, "app", run)
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    assert capsys.readouterr().err.startswith(f"ppe-yolo: error: {expected}")


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(cli, "app", lambda args: [][1])
    with pytest.raises(IndexError):
        cli.main([])
