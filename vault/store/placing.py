"""How a whole and verified body becomes an entry, in an order that survives ``kill -9`` and power loss at every step.

The partial file is synced, renamed to its place, the directory is synced, then the row is written.  Before the rename
the entry is absent; between rename and row the file is whole but unknown, and found again by ``vault.store.recovery``;
an older row never describes a newer file, because a row names its file by length, inode and modification time.

Everything here runs on disk threads.
"""

from __future__ import annotations

import contextlib
import errno
import mimetypes
import os
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from vault.artifact import NOTED_URL, VERIFIED, Head
from vault.paths import file_name, safe_name
from vault.store.body import OpenFile
from vault.store.index import LARGEST, Row
from vault.store.layout import Layout
from vault.store.writer import FillWriter

if TYPE_CHECKING:
    from vault.store.store import Store

FARTHEST = LARGEST // 10**9
"""Seconds from 1970, which lie in the years 2262 and 1677."""

IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY, errno.EEXIST)


def place(store: Store, writer: FillWriter, name: str) -> None:
    """Make the body that ``writer`` wrote into the partial file ``name`` the entry of its key."""
    body, key, layout = writer.body, writer.key, store.layout
    if writer.lost:
        raise OSError(errno.EIO, "some of what was written did not reach the disk")
    assert body.file is not None and body.sha256 is not None and body.length is not None
    path = path_of(key, body.head)
    before = store.index.path_of(key)
    twin = store.index.twin(body.sha256, key)
    source = None if twin is None else link(layout, twin, name)
    if source is None:
        source = name
        set_time(body.file.descriptor, body.head.last_modified)
        os.fsync(body.file.descriptor)
        _check(writer, layout.partial_status(name))  # now: to sync may take long
    try:
        _place(store, writer, source, path)
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        path = "/".join(safe_name(key))  # a file stands where a directory must be, or the other way round
        _place(store, writer, source, path)
    layout.remove_partial(name)
    if before not in (None, path):
        with contextlib.suppress(OSError):
            layout.remove(before)


def _check(writer: FillWriter, found: os.stat_result) -> None:
    """Raise OSError where the partial file is not what the fill wrote: somebody else's hands were at it."""
    body = writer.body
    assert body.file is not None
    if found.st_size != body.length or not os.path.samestat(found, os.fstat(body.file.descriptor)):
        raise OSError(errno.EIO, "its partial file was changed by somebody else")


def path_of(key: str, head: Head) -> str:
    """Where an entry is stored.

    With a Content-Encoding that its name does not tell, as ``.gz`` does, it has the safe form, which is not taken up
    without its row: a readable name would promise what is inside the coding, and the file alone tells of none.
    """
    coding = head.get("Content-Encoding")
    told = coding is None or mimetypes.guess_type(key)[1] == coding.lower().removeprefix("x-")
    told = told and head.get(NOTED_URL) is None  # nor does a page's file tell what its links are relative to
    return "/".join(file_name(key) if told else safe_name(key))


def _place(store: Store, writer: FillWriter, source: str, path: str) -> None:
    body = writer.body
    assert body.sha256 is not None and body.length is not None
    expected = writer.hashes.expected
    verified = str(expected) if expected is not None and expected.algorithm != "sha256" else None
    head = body.head.with_headers({VERIFIED: verified})
    enter(store, Row(writer.key, path, head, body.length, body.sha256, 0, 0, 0.0), source, body.file)


def enter(store: Store, row: Row, source: str, held: OpenFile | None = None) -> str:
    """Move the file ``source`` to the row's path and write the row, with the file's status; returns the path.

    ``held`` is the file as its fill has it open: while somebody reads it there, it counts as being read.
    """
    layout = store.layout
    with store.place_lock(row.path):
        # Opened before it is placed: then nothing but the row can fail behind that.
        if held is None or not os.path.samestat(layout.partial_status(source), os.fstat(held.descriptor)):
            held = OpenFile(layout.read_partial(source))
        layout.place(source, row.path)
        try:
            store.index.put(replace(row, used=store.now()).of(os.fstat(held.descriptor)))
        except Exception:
            layout.remove(row.path)  # nobody would know of it, nor remove it when space runs short
            raise
        store.held.drop(row.key)
        store.reading[row.key] = held
    return row.path


def link(layout: Layout, twin: Row, name: str) -> str | None:
    """A second name of a stored file of the same content, if that is still what its row says."""
    try:
        file = OpenFile(layout.open(twin.path))
        if not twin.describes(os.fstat(file.descriptor)):
            return None
        linked = layout.link(twin.path, name)
        if twin.describes(layout.partial_status(linked)):
            return linked
        layout.remove_partial(linked)  # a new version has just taken its place
    except OSError:
        pass
    return None


def set_time(descriptor: int, last_modified: str | None) -> None:
    """Date the file as its upstream does: for people, and for Last-Modified after the index was lost.

    A date that is too far off for the index becomes the farthest that is not.
    """
    if last_modified is not None:
        with contextlib.suppress(ValueError, OverflowError, OSError):
            stamp = int(parsedate_to_datetime(last_modified).timestamp())
            stamp = max(-FARTHEST, min(stamp, FARTHEST))
            os.utime(descriptor, (stamp, stamp))
