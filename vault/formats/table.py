"""A sorted table in a file: what a large document says of each of its entries, found again without reading it whole.

Each line is a key, a tab and a value in UTF-8, sorted by the key's bytes; a look-up reads a few hundred bytes for each
halving of the file.  Neither keys nor values have tabs or line feeds.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator

from vault.errors import Truncated
from vault.interfaces import IBody

PROBE = 512
"""Bytes read at once: more than most lines have, so that one read finds a whole line."""

BATCH = 500
"""Lines written out at once."""

RUN = 4000
"""Keys sorted at once."""


def build(entries: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    """The table of these entries, of which the first counts where a key is given twice; raises ValueError for a tab."""
    found: dict[bytes, bytes] = {}
    for key, value in entries:
        if "\t" in key or "\n" in key or "\t" in value or "\n" in value:
            raise ValueError(f"not fit for a table: {key[:80]!r}")
        found.setdefault(key.encode(), value.encode())
    keys = list(found)
    # Sorted in runs: one call for all of them would hold up every other thread until it ends.
    runs = [sorted(keys[start : start + RUN]) for start in range(0, len(keys), RUN)]
    lines = (b"%b\t%b\n" % (key, found[key]) for key in heapq.merge(*runs))
    while batch := b"".join(itertools.islice(lines, BATCH)):
        yield batch


async def look_up(table: IBody, key: str) -> str | None:
    """The value of ``key`` in a complete table; None where it has none.  Raises Truncated if the file was cut."""
    wanted = key.encode()
    start = await _first(table, wanted)
    found, _, value = (await _line(table, start)).partition(b"\t")
    return value.decode() if found == wanted else None


async def beginning(table: IBody, prefix: str, most: int) -> list[str]:
    """The values of the first ``most`` keys that begin so, in the order of the keys; otherwise as ``look_up``."""
    wanted = prefix.encode()
    start = await _first(table, wanted)
    values: list[str] = []
    while start < table.size and len(values) < most:
        line = await _line(table, start)
        if not line.startswith(wanted):
            break
        values.append(line.partition(b"\t")[2].decode())
        start += len(line) + 1
    return values


async def _first(table: IBody, wanted: bytes) -> int:
    """Where the first line begins whose key is not less than this; the table's size where there is none."""
    low, high = 0, table.size  # it begins in [low, high]
    while low < high:
        middle = (low + high) // 2
        start = await _line_start(table, middle, low)
        line = await _line(table, start)
        if line.partition(b"\t")[0] < wanted:
            low = start + len(line) + 1
        else:
            high = start
    return low


async def _line_start(table: IBody, offset: int, low: int) -> int:
    """Where the line begins that holds the byte at ``offset``; a line begins at ``low``."""
    end = offset
    while end > low:
        start = max(low, end - PROBE)
        before = await _read(table, start, end - start)
        feed = before.rfind(b"\n")
        if feed >= 0:
            return start + feed + 1
        end = start
    return low


async def _line(table: IBody, start: int) -> bytes:
    """The line that begins at ``start``, without its line feed."""
    data = b""
    while b"\n" not in data and start + len(data) < table.size:
        data += await _read(table, start + len(data), PROBE)
    return data.partition(b"\n")[0]


async def _read(table: IBody, offset: int, size: int) -> bytes:
    """Exactly ``size`` bytes, or those up to the end."""
    data = b""
    while len(data) < size and offset + len(data) < table.size:
        piece = table.read(offset + len(data), size - len(data))
        more = piece if isinstance(piece, bytes) else await piece
        if not more:
            raise Truncated("a stored table is shorter than it was")
        data += more
    return data
