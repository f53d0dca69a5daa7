"""Photos of every kind, upright in both decoders, and photos behind an address."""

import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppe_yolo.core.errors import UserError
from ppe_yolo.data import images
from ppe_yolo.data.images import ImageError, check_image, local_path, read_image, shown

ORIENTATION = 0x0112


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def turned_upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF 2.3, 4.6.4 says: where row 0 and column 0 of the stored photo are when it is shown."""
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
def test_both_decoders_turn_a_photo_the_same_way(
    picture: Callable[..., np.ndarray], tmp_path: Path, orientation: int, suffix: str
) -> None:
    stored = picture("turned", (48, 64))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = str(tmp_path / f"a.{suffix}")
    Image.fromarray(stored).save(path, exif=exif, quality=95)
    expected = turned_upright(stored, orientation)
    assert difference(read_image(path), expected) < 8  # what compression leaves; the wrong way round it is above 30
    size, stored_size, unusual, small = check_image(path)
    assert size == expected.shape[:2]
    assert stored_size == (48, 64)
    assert small.shape == expected.shape[:2]
    assert difference(small, cv2.cvtColor(np.ascontiguousarray(expected), cv2.COLOR_RGB2GRAY)) < 8
    assert [f"EXIF orientation {orientation}" in text for text in unusual] == ([True] if orientation > 1 else [])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("P", "png"), ("1", "png"), ("LA", "png"), ("RGBA", "png"), ("I;16", "png")],
)
def test_unusual_kinds_become_rgb(picture: Callable[..., np.ndarray], tmp_path: Path, mode: str, suffix: str) -> None:
    rgb = Image.fromarray(picture("kinds"))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    photo = deep if mode == "I;16" else rgb.convert(mode)
    path = tmp_path / f"a.{suffix}"
    photo.save(path)
    expected = np.asarray(rgb.convert("L").convert("RGB") if mode == "I;16" else photo.convert("RGB"))
    pixels = read_image(str(path))
    assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
    assert difference(pixels, expected) < 4
    assert check_image(str(path))[2] == [f"{mode} instead of RGB, converted"]


def test_sixteen_bit_colour(picture: Callable[..., np.ndarray], tmp_path: Path) -> None:
    rgb = picture("deep")
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, rgb[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(path), rgb)
    assert check_image(path)[0] == (48, 64)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7])
def test_truncated_photos_are_refused(picture: Callable[..., np.ndarray], tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture("cut")).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ImageError) as refused:
        check_image(str(path))
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_photo_that_only_one_decoder_knows_is_refused_at_the_check(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.arange(48 * 64, dtype=np.float32).reshape(48, 64)).save(path)
    with pytest.raises(ImageError, match=r"a.tif: expected a photo, got \d+ bytes that cannot be decoded"):
        check_image(str(path))


def test_a_video_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "site.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    with pytest.raises(ImageError, match=r"site.mp4: expected a photo, got a video: ppe_edge"):
        read_image(str(tmp_path / "site.mp4"))


def test_no_photo(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>404</html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("page.jpg", "empty.jpg"):
        for read in (read_image, check_image):
            with pytest.raises(ImageError, match=f"{name}: .*replace it"):
                read(str(tmp_path / name))
    with pytest.raises(ImageError, match=r"none.jpg: cannot be read"):
        read_image(str(tmp_path / "none.jpg"))
    with pytest.raises(ImageError, match=r"none.jpg: no such photo"):
        check_image(str(tmp_path / "none.jpg"))


def test_a_huge_photo_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 3000)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"expected at most 3000 pixels, got 64x48: make it smaller"):
        check_image(str(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/photos/a?b@c.jpg", "/photos/a?b@c.jpg"),
        ("https://host/a.jpg?sv=1&sig=SECRET", "https://host/a.jpg"),
        ("https://user:SECRET@host:80/b/a@2x.jpg", "https://host:80/b/a@2x.jpg"),
        ("https://user:SEC@RET@host/a.jpg#SECRET", "https://host/a.jpg"),
        ("abfs://box@account.dfs.core.windows.net/a.jpg", "abfs://account.dfs.core.windows.net/a.jpg"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, expected: str) -> None:
    assert shown(address) == expected


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would ask the network for this machine's name


class Site:
    """A web server on this machine that counts what is asked of it."""

    def __init__(self, photo: bytes) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200 if self.path.startswith("/photos/") else 403)
                self.send_header("Content-Length", str(len(photo)))
                self.end_headers()
                self.wfile.write(photo)

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


def test_a_photo_behind_an_address_is_fetched_once(site: Site, picture: Callable[..., np.ndarray]) -> None:
    url = f"http://{site.host}/photos/a.png?sv=2&sig=SECRET"
    assert np.array_equal(read_image(url), picture("far away"))
    site.stop()
    assert np.array_equal(read_image(url), picture("far away"))  # nobody is there to ask
    assert check_image(url)[0] == (48, 64)
    assert site.asked == ["/photos/a.png?sv=2&sig=SECRET"]
    cached = list(local_path(url).parent.iterdir())
    assert len(cached) == 1  # nothing else, so no secret either
    assert "SECRET" not in cached[0].name
    with pytest.raises(ImageError) as refused:
        read_image(url.replace("a.png", "b.png"))
    assert str(refused.value).startswith(f"http://{site.host}/photos/b.png: cannot be fetched (")
    assert "SECRET" not in str(refused.value)


def test_refused_photos_show_no_secret_and_are_not_kept(site: Site, tmp_path: Path) -> None:
    for read in (read_image, check_image):
        with pytest.raises(ImageError) as refused:
            read(f"http://{site.host}/private/a.png?sig=SECRET")
        assert str(refused.value).startswith(f"http://{site.host}/private/a.png: cannot be fetched (")
        assert "SECRET" not in str(refused.value)
        assert "SECRET" not in repr(refused.value.__cause__)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("protocol", ["nosuch", "abfs"])
def test_a_protocol_without_its_library(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("Install adlfs")

    if protocol == "abfs":
        monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(ImageError, match=r"pip install 'ppe-yolo\[blob\]' for Azure blobs") as refused:
        read_image(f"{protocol}://user:SECRET@host/a.jpg?sig=SECRET")
    assert "SECRET" not in str(refused.value)


def test_a_wrong_address_is_not_blamed_on_a_library() -> None:
    with pytest.raises(ImageError, match=r"http://127.0.0.1:port/a.jpg: cannot be fetched \(.*check address and access"):
        read_image("http://127.0.0.1:port/a.jpg")


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPE_YOLO_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/.*: cannot be written"):
        read_image(f"http://{site.host}/photos/a.png")


def test_a_list_of_addresses_through_the_audit(site: Site, tmp_path: Path, run_cli: Callable[..., int], capsys) -> None:
    lines = [f"http://u:SECRET@{site.host}/{p}.png?sig=SECRET 1,2,30,40,helmet\n" for p in ("photos/a", "private/b")]
    (tmp_path / "voc_test.txt").write_text("".join(lines))
    assert run_cli("audit", tmp_path / "voc_test.txt", "--json", tmp_path / "audit.json") == 1
    assert f"http://{site.host}/private/b.png: cannot be fetched" in (tmp_path / "audit.json").read_text()
    printed = capsys.readouterr()
    assert "SECRET" not in printed.out + printed.err + (tmp_path / "audit.json").read_text()
