from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ppe_edge.cameras.address import encode_credentials
from ppe_edge.cameras.sources import SourceConfig
from ppe_edge.common.redact import redact_text


@pytest.mark.parametrize(
    ("typed", "encoded"),
    [
        ("rtsp://admin:pw@192.0.2.7:554/a", "rtsp://admin:pw@192.0.2.7:554/a"),
        ("rtsp://admin:p#w@192.0.2.7/a", "rtsp://admin:p%23w@192.0.2.7/a"),
        ("rtsp://admin:p/w@192.0.2.7/a", "rtsp://admin:p%2Fw@192.0.2.7/a"),
        ("rtsp://admin:p?w@192.0.2.7/a", "rtsp://admin:p%3Fw@192.0.2.7/a"),
        ("rtsp://admin:p@w@192.0.2.7/a", "rtsp://admin:p%40w@192.0.2.7/a"),
        ("rtsp://admin:p:w@192.0.2.7/a", "rtsp://admin:p%3Aw@192.0.2.7/a"),
        ("rtsp://admin:12/34@192.0.2.7:554/a", "rtsp://admin:12%2F34@192.0.2.7:554/a"),
        ("rtsp://admin:p@w/x@192.0.2.7/a", "rtsp://admin:p%40w%2Fx@192.0.2.7/a"),
        ("rtsp://admin:p#w@camera/a", "rtsp://admin:p%23w@camera/a"),
        ("rtsp://admin:12#3@camera/a", "rtsp://admin:12%233@camera/a"),
        ("rtsp://a@example.org:p/w@camera/a", "rtsp://a%40example.org:p%2Fw@camera/a"),
        ("rtsp://admin:p%23w@camera/a", "rtsp://admin:p%23w@camera/a"),
        ("rtsp://admin:100%@camera/a", "rtsp://admin:100%25@camera/a"),
        ("rtsp://admin:p#w@[::1]:554/a", "rtsp://admin:p%23w@[::1]:554/a"),
        ("rtsp://192.0.2.7:554/user=a&password=p@w", "rtsp://192.0.2.7:554/user=a&password=p@w"),
        ("http://camera.local/a?token=1@2", "http://camera.local/a?token=1@2"),
        ("http://camera:8080/a?token=1@2", "http://camera:8080/a?token=1@2"),
        ("http://u:p@camera.local/a?token=1@b.c", "http://u:p@camera.local/a?token=1@b.c"),
        ("/dev/video0", "/dev/video0"),
        ("videos/a@b.mp4", "videos/a@b.mp4"),
    ],
)
def test_encode_credentials_leaves_host_and_path(typed: str, encoded: str) -> None:
    assert encode_credentials(typed) == encoded
    assert encode_credentials(encoded) == encoded
    assert SourceConfig(source=typed).address == encoded


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="%"), min_size=1, max_size=12))
def test_any_password_survives_and_is_hidden(password: str) -> None:
    password = f"QX{password}XQ"
    encoded = encode_credentials(f"rtsp://admin:{password}@192.0.2.7:554/live")
    parts = urlsplit(encoded)
    assert (parts.hostname, parts.port, parts.path) == ("192.0.2.7", 554, "/live")
    assert unquote(parts.password or "") == password
    assert password not in redact_text(f"cannot open {encoded}: wrong password {password}", encoded)
