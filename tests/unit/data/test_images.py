"""Images of every kind, upright in both decoders, and images behind a URL."""

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.audit import image_check
from ppe_yolo.data.audit.image_check import check_image
from ppe_yolo.data.images import ImageError, local_path, read_image, shown

ORIENTATION = 0x0112


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def rotated_upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.3, section 4.6.4: where row 0 and column 0 of the stored image are in the upright image."""
    flip, transpose = (lambda a: a[:, ::-1]), (lambda a: a.transpose(1, 0, 2))
    return {
        1: lambda a: a,
        2: flip,
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: transpose,
        6: lambda a: flip(transpose(a)),
        7: lambda a: transpose(a[::-1, ::-1]),
        8: lambda a: transpose(a)[::-1],
    }[orientation](stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_read_and_check_image_rotate_upright(
    picture: Callable[..., np.ndarray], tmp_path: Path, orientation: int, suffix: str
) -> None:
    stored = picture("rotated", (48, 64))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = str(tmp_path / f"a.{suffix}")
    Image.fromarray(stored).save(path, exif=exif, quality=95)
    expected = rotated_upright(stored, orientation)
    assert difference(read_image(path), expected) < 8  # compression; a wrong rotation gives more than 30
    check = check_image(path)
    assert check.size == expected.shape[:2]
    assert check.stored_size == (48, 64)
    Image.fromarray(expected).save(tmp_path / "upright.png")
    upright = check_image(str(tmp_path / "upright.png"))
    assert (check.perceptual_hash ^ upright.perceptual_hash).bit_count() <= 4
    assert [f"EXIF orientation {orientation}" in text for text in check.unusual] == ([True] if orientation > 1 else [])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("P", "png"), ("1", "png"), ("LA", "png"), ("RGBA", "png"), ("I;16", "png")],
)
def test_read_image_converts_modes_to_rgb(picture: Callable[..., np.ndarray], tmp_path: Path, mode: str, suffix: str) -> None:
    rgb = Image.fromarray(picture("kinds"))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    image = deep if mode == "I;16" else rgb.convert(mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    expected = np.asarray(rgb.convert("L").convert("RGB") if mode == "I;16" else image.convert("RGB"))
    pixels = read_image(str(path))
    assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
    assert difference(pixels, expected) < 4
    assert check_image(str(path)).unusual == (f"{mode} instead of RGB: converted",)


def test_read_image_scales_sixteen_bit_colour_to_eight(picture: Callable[..., np.ndarray], tmp_path: Path) -> None:
    rgb = picture("deep")
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, rgb[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(path), rgb)
    assert check_image(path).size == (48, 64)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7])
def test_check_image_truncated_raises(picture: Callable[..., np.ndarray], tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture("cut")).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ImageError) as raised:
        check_image(str(path))
    assert raised.value.file == str(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_check_image_that_only_one_decoder_reads_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.arange(48 * 64, dtype=np.float32).reshape(48, 64)).save(path)
    with pytest.raises(ImageError, match=r"a.tif: expected 8 or 16 bits per channel, got 32 bits"):
        check_image(str(path))


def test_read_image_video_raises(tmp_path: Path) -> None:
    (tmp_path / "site.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    with pytest.raises(ImageError, match=r"site.mp4: expected an image, got a video: only ppe_edge"):
        read_image(str(tmp_path / "site.mp4"))


def test_read_image_other_content_raises(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>404</html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("page.jpg", "empty.jpg"):
        for read in (read_image, check_image):
            with pytest.raises(ImageError, match=f"{name}: .*replace the"):
                read(str(tmp_path / name))
    with pytest.raises(ImageError, match=r"none.jpg: cannot be read"):
        read_image(str(tmp_path / "none.jpg"))
    with pytest.raises(ImageError, match=r"none.jpg: no such image"):
        check_image(str(tmp_path / "none.jpg"))


def test_check_image_huge_raises_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_check, "MAX_PIXELS", 3000)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"expected at most 3000 pixels, got 64x48: make the image smaller"):
        check_image(str(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/images/a?b@c.jpg", "/images/a?b@c.jpg"),
        ("https://host/a.jpg?sv=1&sig=SECRET", "https://host/a.jpg"),
        ("https://user:SECRET@host:80/b/a@2x.jpg", "https://host:80/b/a@2x.jpg"),
        ("https://user:SEC@RET@host/a.jpg#SECRET", "https://host/a.jpg"),
        ("abfs://box@account.dfs.core.windows.net/a.jpg", "abfs://account.dfs.core.windows.net/a.jpg"),
    ],
)
def test_shown_removes_secrets(url: str, expected: str) -> None:
    assert shown(url) == expected


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own would look up the host name on the network


class Site:
    """A local web server that records requests."""

    def __init__(self, content: bytes) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                self.send_response(200 if self.path.startswith("/images/") else 403)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


@pytest.fixture
def site(picture: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "cache"))
    site = Site(cv2.imencode(".png", picture("far away")[..., ::-1])[1].tobytes())
    yield site
    site.stop()


def test_read_image_url_is_downloaded_once(site: Site, picture: Callable[..., np.ndarray]) -> None:
    url = f"http://{site.host}/images/a.png?sv=2&sig=SECRET"
    assert np.array_equal(read_image(url), picture("far away"))
    site.stop()
    assert np.array_equal(read_image(url), picture("far away"))  # the server is gone
    assert check_image(url).size == (48, 64)
    assert site.requests == ["/images/a.png?sv=2&sig=SECRET"]
    cached = list(local_path(url).parent.iterdir())
    assert len(cached) == 1  # nothing else, so no secret
    assert "SECRET" not in cached[0].name
    with pytest.raises(ImageError) as raised:
        read_image(url.replace("a.png", "b.png"))
    assert str(raised.value).startswith(f"http://{site.host}/images/b.png: cannot be downloaded (")
    assert "SECRET" not in str(raised.value)


def test_failed_download_shows_no_secret_and_is_not_cached(site: Site, tmp_path: Path) -> None:
    for read in (read_image, check_image):
        with pytest.raises(ImageError) as raised:
            read(f"http://{site.host}/private/a.png?sig=SECRET")
        assert str(raised.value).startswith(f"http://{site.host}/private/a.png: cannot be downloaded (")
        assert "SECRET" not in str(raised.value)
        assert "SECRET" not in repr(raised.value.__cause__)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("protocol", ["nosuch", "abfs"])
def test_read_image_protocol_without_library_raises(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("Install adlfs")

    if protocol == "abfs":
        monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(ImageError, match=r"pip install 'ppe-yolo\[blob\]' for Azure blobs") as raised:
        read_image(f"{protocol}://user:SECRET@host/a.jpg?sig=SECRET")
    assert "SECRET" not in str(raised.value)


def test_read_image_wrong_url_does_not_blame_a_library() -> None:
    with pytest.raises(ImageError, match=r"http://127.0.0.1:port/a.jpg: cannot be downloaded \(.*check the address and"):
        read_image("http://127.0.0.1:port/a.jpg")


def test_read_image_unwritable_cache_raises(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/.*: cannot be written"):
        read_image(f"http://{site.host}/images/a.png")


def test_audit_list_of_urls_shows_no_secret(site: Site, tmp_path: Path, run_cli: Callable[..., int], capsys) -> None:
    lines = [f"http://u:SECRET@{site.host}/{p}.png?sig=SECRET 1,2,30,40,helmet\n" for p in ("images/a", "private/b")]
    (tmp_path / "voc_test.txt").write_text("".join(lines))
    assert run_cli("audit", tmp_path / "voc_test.txt", "--json", tmp_path / "audit.json") == 1
    saved = (tmp_path / "audit.json").read_text()
    (problem,) = [p for p in json.loads(saved)["problems"] if p["severity"] == "error"]
    assert problem["file"] == f"http://{site.host}/private/b.png"
    assert problem["message"].startswith("cannot be downloaded (")
    printed = capsys.readouterr()
    assert "SECRET" not in printed.out + printed.err + saved
