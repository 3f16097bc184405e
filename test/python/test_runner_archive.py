"""Archives that must not be unpacked, each refused for its own reason and without a file left behind."""

from __future__ import annotations

import io
import stat
import struct
import time
import zipfile

import pytest
from conftest import load_function, pack

MODULES = load_function("plugin-runner", "_archive", "_errors")
archive, RunnerError = MODULES._archive, MODULES._errors.RunnerError


def unpack(data: bytes, folder):
    archive.unpack(io.BytesIO(data), folder)


def refusal(data: bytes, folder) -> str:
    with pytest.raises(RunnerError) as caught:
        unpack(data, folder)
    assert caught.value.code == "archive_refused"
    return caught.value.message


def entry(name: str, content: bytes = b"x", mode: int | None = None, **fields: int) -> bytes:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    if mode is not None:
        info.external_attr = mode << 16
    for key, value in fields.items():
        setattr(info, key, value)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(info, content)
    return buffer.getvalue()


def renamed(old: bytes, new: bytes) -> bytes:
    """A zip whose entry has a name that zipfile itself would not write."""
    assert len(old) == len(new)
    return pack({old.decode(): "x"}).replace(old, new)


def patched(data: bytes, marker: bytes, offset: int, form: str, value: int) -> bytes:
    position = data.index(marker) + offset
    return data[:position] + struct.pack(form, value) + data[position + struct.calcsize(form) :]


def test_a_good_archive_is_unpacked_read_only_without_what_tools_leave_in_archives(tmp_path):
    unpack(
        pack(
            {
                "manifest.py": "a",
                "pipeline.py": "b",
                "processors/core.py": "c",
                "__MACOSX/._x": "d",
                ".DS_Store": "e",
                "__pycache__/x.pyc": "f",
                "y.pyc": "g",
                "empty/": "",
            },
            "p/",
        ),
        tmp_path,
    )
    found = {str(p.relative_to(tmp_path)): p for p in tmp_path.rglob("*") if p.is_file()}
    assert set(found) == {"p/manifest.py", "p/pipeline.py", "p/processors/core.py"}
    assert {stat.S_IMODE(p.stat().st_mode) for p in found.values()} == {0o444}
    assert (tmp_path / "p" / "empty").is_dir()


HOSTILE = {
    "not a zip": (b"hello", "not a zip"),
    "empty": (b"", "not a zip"),
    "cut off": (pack({"a.py": "x" * 1000})[:-30], "not a zip"),
    "dots": (entry("../a.py"), '".."'),
    "dots within": (entry("a/../../b.py"), '".."'),
    "absolute": (entry("/etc/passwd"), "absolute"),
    "drive letter": (entry("c:/a.py"), "absolute"),
    "backslash": (renamed(b"a/b.py", b"a\\b.py"), "backslash"),
    "NUL in a name": (renamed(b"a.py_b", b"a.py\0b"), "backslash or NUL"),
    "symbolic link": (entry("a.py", b"/etc/passwd", stat.S_IFLNK | 0o777), "links and devices"),
    "device": (entry("a.py", b"", stat.S_IFCHR | 0o666), "links and devices"),
    "pipe": (entry("a.py", b"", stat.S_IFIFO | 0o666), "links and devices"),
    "encrypted": (patched(pack({"a.py": "x"}), b"PK\x01\x02", 8, "<H", 1), "encrypted"),
    "other method": (entry("a.py", b"x" * 100, compress_type=zipfile.ZIP_LZMA), "another method"),
    "bomb": (pack({"a.bin": bytes(8 << 20)}), "more than 200 to 1"),
    "upper and lower case": (pack({"a.py": "1", "A.py": "2"}), "occurs twice"),
    "composed and decomposed": (pack({"\u00e9.py": "1", "e\u0301.py": "2"}), "occurs twice"),
    "file and folder of one name": (pack({"a": "1", "a/b.py": "2"}), "refused"),
    "too deep": (entry("/".join("abcdefghijkl") + "/m.py"), "deeper"),
    "too many": (pack({f"f{n}.py": "" for n in range(1001)}), "1001 entries"),
    "wrong checksum": (
        pack({"a.py": "content"}).replace(b"content", b"CONTENT", 1)
        if b"content" in pack({"a.py": "content"})
        else patched(pack({"a.py": "content"}), b"PK\x01\x02", 16, "<I", 1),
        "not a sound zip",
    ),
    "zip64": (patched(pack({"a.py": "x"}), b"PK\x05\x06", 12, "<I", 0xFFFFFFFF), "zip64"),
    "directory elsewhere": (
        patched(pack({"a.py": "x"}), b"PK\x05\x06", 16, "<I", 0x7FFFFFFF),
        "not a sound zip",
    ),
    "directory too large": (patched(pack({"a.py": "x"}), b"PK\x05\x06", 12, "<I", 5 << 20), "too many"),
}


@pytest.mark.parametrize(("data", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused_with_its_reason(tmp_path, data, reason):
    folder = tmp_path / "inner"
    folder.mkdir()
    assert reason in refusal(data, folder)
    assert {p.name for p in tmp_path.iterdir()} == {"inner"}


def test_a_header_that_lies_about_the_size_does_not_get_more_than_the_limit_out(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FILE_BYTES_MAX", 1000)
    data = pack({"a.bin": bytes(range(256)) * 8})
    lying = patched(data, b"PK\x01\x02", 24, "<I", 10)
    with pytest.raises(RunnerError):
        unpack(lying, tmp_path)
    assert (tmp_path / "a.bin").stat().st_size <= 1000
    assert (
        "larger than 1000 bytes" in refusal(data, tmp_path / "b")
        if (tmp_path / "b").mkdir() is None
        else False
    )


def test_the_sum_of_all_files_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "UNPACKED_BYTES_MAX", 1000)
    assert "larger than 1000" in refusal(pack({f"{n}.bin": bytes(range(250)) for n in range(5)}), tmp_path)


def test_a_failed_download_leaves_neither_folder_nor_file(tmp_path, server):
    server.files["/bad.zip"] = b"PK not really"
    with pytest.raises(RunnerError):
        archive.fetch_and_unpack(server.url("/bad.zip"), "0" * 64, tmp_path / "p", time.monotonic() + 10)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_above_the_limit_is_given_up_while_it_comes(tmp_path, server, monkeypatch):
    monkeypatch.setattr(archive, "ZIP_BYTES_MAX", 1000)
    server.files["/large.zip"] = bytes(5000)
    with pytest.raises(RunnerError) as caught:
        archive.fetch_and_unpack(server.url("/large.zip"), "0" * 64, tmp_path / "p", time.monotonic() + 10)
    assert caught.value.code == "archive_refused" and "larger than 1000" in caught.value.message
