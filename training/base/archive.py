"""Source files out of archives, in memory: nothing is unpacked to disk, so no path in an archive can do harm."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .languages import language_of

# Bytes of one file that are read; quality.py takes no file near it.
MEMBER_BYTES_MAX = 1 << 20
# Bytes read of one archive, so that a bomb ends.
ARCHIVE_BYTES_MAX = 1 << 30


def source_files(archive: Path) -> Iterator[tuple[str, str]]:
    """Path and text of each file in a known language; a tar's common first folder is dropped."""
    read = 0
    for path, content in members(archive):
        # A name in another encoding than UTF-8 comes as lone surrogates, which no JSON of ours can hold.
        if not path.isprintable():
            continue
        read += len(content)
        if read > ARCHIVE_BYTES_MAX:
            return
        text = decode(content)
        if text is not None:
            yield path, text


def folder_files(folder: Path) -> Iterator[tuple[str, str]]:
    """The same of a folder."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if language_of(name) and path.is_file() and not path.is_symlink() and path.stat().st_size <= MEMBER_BYTES_MAX:
            text = decode(path.read_bytes())
            if text is not None:
                yield name, text


def read_member(archive: Path, ending: str) -> str | None:
    """The shortest-named file of an archive whose path ends so."""
    best: tuple[str, bytes] | None = None
    for path, content in members(archive, lambda name: name.endswith(ending)):
        if best is None or len(path) < len(best[0]):
            best = (path, content)
    return decode(best[1]) if best else None


def members(archive: Path, wanted=language_of) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each regular file that `wanted` says yes to."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                # A wheel's scripts are copies of its modules.
                if wanted(info.filename) and ".data/" not in info.filename and info.file_size <= MEMBER_BYTES_MAX:
                    yield info.filename, opened.read(info)
    else:
        with tarfile.open(archive) as opened:
            for member in opened:
                if member.isfile() and wanted(member.name) and member.size <= MEMBER_BYTES_MAX:
                    file = opened.extractfile(member)
                    if file:
                        yield member.name.partition("/")[2] or member.name, file.read()


def decode(content: bytes) -> str | None:
    """UTF-8 with line feeds, or None."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")
