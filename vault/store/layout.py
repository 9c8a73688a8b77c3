"""The cache directory: where files lie, how they are opened, placed and removed.

    cache_dir/<backend>/<path>         stored entries, plain files
    cache_dir/.vault/index.db          what is known about them
    cache_dir/.vault/partial/<name>    fills that have not ended
    cache_dir/.vault/lock              held while a vault uses the directory

Every directory on the way to a file is opened relative to the one above it and never through a symbolic link, so that
a link planted inside the cache leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from vault.errors import StoreError

PRIVATE = ".vault"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted FIFO must not block the open
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILL = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

_OWN = ("index.db", "index.db-wal", "index.db-shm", "index.db-journal", "index.damaged", "open", "probe", "lock")

MEND = "; give the vault's user that directory, or set cache_dir to another place"
"""What to do about a directory that cannot be written."""

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class Layout:
    """The files of one cache directory; ``dir_mode`` and ``file_mode`` are what new ones get."""

    def __init__(self, root: Path, dir_mode: int = 0o750, file_mode: int = 0o640) -> None:
        self.root = root
        self.index = root / PRIVATE / "index.db"
        self._partials = root / PRIVATE / "partial"
        self.dir_mode = dir_mode
        self.file_mode = file_mode
        self._lock: int | None = None

    def prepare(self) -> None:
        """Create what is missing and take the lock; raises StoreError with a sentence for the operator."""
        try:
            self._check_owner()
            for directory in (self.root, self.root / PRIVATE, self._partials):
                self._make(directory)
            for name in _OWN:  # SQLite would follow a link in the place of its files
                _refuse_link(self.root / PRIVATE / name)
            self._check_owner()
            self._take_lock()
        except OSError as error:
            mend = MEND if error.errno in NOT_WRITABLE else ""
            raise StoreError(f"cannot use the cache directory {self.root}: {error.strerror or error}{mend}") from error

    def _make(self, directory: Path) -> None:
        # makedirs gives intermediate directories the default mode, which is right for those above the cache.
        if directory != self.root:
            _refuse_link(directory)
        if not directory.is_dir() and directory.exists():
            raise StoreError(f"the cache directory {directory} is not a directory; set cache_dir to another place")
        if not directory.is_dir():
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir(self.dir_mode, exist_ok=True)
            directory.chmod(self.dir_mode)

    def _check_owner(self) -> None:
        # In a directory that anyone may write to, such as /tmp, somebody else could have put the cache directory, one
        # above it, or a link in its place, before us: what they then put inside would be handed out as true.
        path = self.root.absolute()
        for directory in (path, *path.parents[:-1]):
            try:
                above, found = directory.parent.stat(), directory.lstat()
            except FileNotFoundError:
                continue
            mine = found.st_uid == os.geteuid() or (directory != path and found.st_uid == 0)
            if above.st_mode & stat.S_IWOTH and (not mine or stat.S_ISLNK(found.st_mode)):
                raise StoreError(
                    f"the cache directory {self.root} cannot be trusted: {directory} is in a directory that anyone may "
                    f"write to, and is a link or does not belong to the user who runs the vault (uid {os.geteuid()}); "
                    "remove it or set cache_dir to another place"
                )

    def _take_lock(self) -> None:
        lock = os.open(self.root / PRIVATE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(lock, 20).decode("ascii", "replace").strip()
            os.close(lock)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StoreError(
                f"the cache directory {self.root} is in use by another vault (process {owner or 'unknown'}); "
                "stop that one or set cache_dir to another place"
            ) from error
        with contextlib.suppress(OSError):  # a full disk; the number is for people
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self.release()
        self._lock = lock

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def left_open(self) -> bool:
        """True where a vault that used the directory was not stopped in order."""
        return os.path.lexists(self.root / PRIVATE / "open")

    def mark_open(self) -> None:
        """Note, so that it survives a power failure, that a vault is using the directory; raises OSError."""
        self._mark("open")
        directory = os.open(self.root / PRIVATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _mark(self, name: str) -> None:
        os.close(os.open(self.root / PRIVATE / name, _WRITE, self.file_mode))

    def mark_closed(self) -> None:
        """The vault has stopped, and the index says all."""
        with contextlib.suppress(OSError):
            (self.root / PRIVATE / "open").unlink()

    def make_index(self) -> None:
        """Make the index's file, if there is none, and give it the mode of all files; raises OSError.

        SQLite would make it as the umask has it, and gives the files beside it the mode that it has.
        """
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.index, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.file_mode))
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):  # it is not there, or another user's of the same group
                Path(f"{self.index}{suffix}").chmod(self.file_mode)

    def condemn_index(self) -> None:
        """Note that the index is damaged."""
        with contextlib.suppress(OSError):
            self._mark("index.damaged")

    def pardon_index(self) -> None:
        """Note that it is not; raises OSError."""
        (self.root / PRIVATE / "index.damaged").unlink(missing_ok=True)

    def remove_condemned_index(self) -> None:
        """Remove an index that was found damaged; raises OSError."""
        if os.path.lexists(self.root / PRIVATE / "index.damaged"):
            self.remove_index()

    def remove_index(self) -> None:
        """Remove the index, so that an empty one can be made; raises OSError."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.index}{suffix}").unlink(missing_ok=True)
        self.pardon_index()

    def intact(self) -> bool:
        """False when the directory that was prepared is no longer the one at its path."""
        if self._lock is None:
            return False
        try:
            there = (self.root / PRIVATE / "lock").lstat()
        except OSError:
            return False
        mine = os.fstat(self._lock)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    @contextlib.contextmanager
    def _parent(self, components: Sequence[str], create: bool = False) -> Iterator[int]:
        """A descriptor of the directory that holds ``components``; raises OSError for a link or a file on the way."""
        directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in components[:-1]:
                try:
                    below = os.open(name, _DIRECTORY, dir_fd=directory)
                except FileNotFoundError:
                    if not create:
                        raise
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, self.dir_mode, dir_fd=directory)
                        os.chmod(name, self.dir_mode, dir_fd=directory)  # whatever the umask
                        os.fsync(directory)
                    below = os.open(name, _DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = below
            yield directory
        finally:
            os.close(directory)

    def open(self, path: str) -> int:
        """A descriptor for reading a stored file; raises OSError where there is no regular file of that path."""
        components = path.split("/")
        with self._parent(components) as directory:
            descriptor = os.open(components[-1], _READ, dir_fd=directory)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ENOENT, "not a regular file", path)
        return descriptor

    def open_partial(self, name: str, fresh: bool) -> int:
        """A descriptor of a fill's file; if ``fresh``, of a new one: the old one may still have readers."""
        if fresh:
            self.remove_partial(name)
        descriptor = os.open(self._partials / name, _FILL, self.file_mode)
        os.fchmod(descriptor, self.file_mode)  # whatever the umask
        return descriptor

    def read_partial(self, name: str) -> int:
        """A descriptor for reading a fill's file; raises OSError where there is none."""
        return os.open(self._partials / name, _READ)

    def partial_size(self, name: str) -> int | None:
        """The bytes in a fill's file; None where there is none."""
        try:
            found = (self._partials / name).lstat()
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def partial_status(self, name: str) -> os.stat_result:
        """The status of a fill's file; raises OSError where there is none."""
        return (self._partials / name).lstat()

    def partial_names(self) -> list[str]:
        """The names of all fills' files; a directory is no work of ours."""
        with os.scandir(self._partials) as entries:
            return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]

    def remove_partial(self, name: str) -> None:
        """Remove a fill's file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            (self._partials / name).unlink()

    def place(self, name: str, path: str) -> None:
        """Move a finished fill to its path in one step; it survives a power failure once this returns.

        Raises NotADirectoryError or IsADirectoryError where a file stands in the way of a directory or the other way.
        """
        for remaining in (3, 2, 1, 0):
            try:
                self._rename(name, path)
                break
            except FileNotFoundError:
                # The removal of another entry may have taken the directory, empty as it still was, from under us.
                if not remaining or self.partial_size(name) is None:
                    raise
        self.remove_partial(name)  # renaming one name of a file to another of the same file leaves both

    def _rename(self, name: str, path: str) -> None:
        components = path.split("/")
        with self._parent(components, create=True) as directory:
            os.rename(self._partials / name, components[-1], dst_dir_fd=directory)
            try:
                os.fsync(directory)
            except OSError:
                os.unlink(components[-1], dir_fd=directory)  # who asked for it will not write its row
                raise

    def link(self, twin: str, name: str) -> str:
        """Give the stored file ``twin`` a second name beside the fill ``name``; what to ``place`` instead of the fill.

        The fill's own name never becomes a link: a fill that is gone on with would write into the stored file.
        """
        components = twin.split("/")
        substitute = name + ".link"
        with self._parent(components) as directory:
            self.remove_partial(substitute)
            os.link(components[-1], self._partials / substitute, src_dir_fd=directory, follow_symlinks=False)
        return substitute

    def remove(self, path: str) -> None:
        """Remove a stored file and the directories that it leaves empty."""
        components = path.split("/")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._parent(components) as directory:
            os.unlink(components[-1], dir_fd=directory)
        for depth in range(len(components) - 1, 1, -1):
            try:
                with self._parent(components[:depth]) as directory:
                    os.rmdir(components[depth - 1], dir_fd=directory)
            except OSError:
                return

    def walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every stored file with its status, in no order; passes over links, the private directory and other names."""
        pending = [""]
        while pending:
            below = pending.pop()
            with contextlib.suppress(OSError), os.scandir(self.root / below) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if path == PRIVATE or not _is_text(path):
                        continue
                    with contextlib.suppress(OSError):  # it may go while it is looked at
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(path)
                        elif below and entry.is_file(follow_symlinks=False):
                            yield path, entry.stat(follow_symlinks=False)

    def probe(self) -> None:
        """Write a mebibyte and remove it again; raises OSError where that cannot be done."""
        probe = self.root / PRIVATE / "probe"
        try:
            with open(os.open(probe, _WRITE | os.O_TRUNC, self.file_mode), "wb") as file:
                file.write(bytes(1 << 20))
        finally:
            probe.unlink(missing_ok=True)

    def space(self) -> tuple[int, int]:
        """Free and total bytes of the file system, as the vault's user sees them."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def files(self) -> tuple[int, int]:
        """How many more files (inodes) the file system takes, and how many it can have; zeros where it has no limit."""
        found = os.statvfs(self.root)
        return (found.f_favail, found.f_files) if found.f_files > 0 else (0, 0)

    def lacking_files(self) -> int:
        """How many files should go where the file system can hardly take another one; 0 else, and where unknown."""
        try:
            free, total = self.files()
        except OSError:
            return 0
        few = max(8, min(256, total // 100))
        # Not before half of them are gone: else each new file would cost an old one.
        return few - free if total and free < few // 2 else 0


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise StoreError(f"{path} is a symbolic link, which the vault does not follow; remove it")


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
