"""A Python package index through the vault: installing, large pages, crowds, and what parsing costs the others.

    1  ``pip download`` of a tree of some 20 packages through a warm vault, and straight from the machine's own index
    2  a page with 5,000 files, warm, beside nginx serving a file of that size; the same compressed
    3  100 clients at once for a page that the vault has not yet: requests upstream
    4  the longest that another client waits while a page with 10,000 files is fetched, parsed and compressed

The first is left out where the machine's index cannot be reached.  Run: ``python -m tests.benchmarks.pypi``.
"""

from __future__ import annotations

import gzip
import http.client
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.common import Nginx, scratch, settle
from tests.formats.pages import large
from tests.functional.clients import ask, together
from tests.functional.origin import Origin
from tests.functional.python_clients import pip
from tests.functional.script import Answer
from tests.functional.simple_index import JSON
from tests.functional.vault_process import VaultProcess
from vault.backends.pypi import public_index

TREE = ("flask", "httpx", "requests", "rich", "pydantic")
ROUNDS = 3
INSTALLS = 5
REPEATS = 200


def main() -> None:
    """Print the figures."""
    with scratch() as directory:
        installs(directory)
        pages(directory)
        crowd(directory)
        stalls(directory)


def start(directory: Path, name: str, index: str, **settings: object) -> VaultProcess:
    """A vault in front of an index."""
    where = directory / name
    where.mkdir()
    config = {"prefix": "/pypi/", "index_url": index, **settings}
    vault = VaultProcess(where, {"cache": {"min_free": 1}, "backends": [{"type": "pypi", "config": config}]})
    vault.start()
    return vault


def setting(name: str) -> str | None:
    """A setting of this machine's pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = [line.partition("=")[2].strip("'\"") for line in listed.splitlines() if f".{name}=" in line]
    return found[-1] if found else None


def installs(directory: Path) -> None:
    """Figure 1."""
    index, certificates = setting("index-url") or public_index(), setting("cert")
    parts = urlsplit(index)
    extra = {"ca_file": certificates} if certificates else {}
    if parts.username:
        extra |= {"username": parts.username, "password": parts.password or ""}
    vault = start(directory, "installing", parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), **extra)
    try:
        if ask(vault.port, "/pypi/simple/flask/", {"Accept": JSON}).status != 200:
            print("1  the machine's index cannot be reached; left out")
            return
        times: dict[str, list[float]] = {"direct": [], "vault": []}
        urls = {"direct": index, "vault": f"{vault.url}/pypi/simple/"}
        install(directory / "cold", urls["vault"], certificates)
        for number in range(INSTALLS):
            for name, url in urls.items():
                home = directory / f"{name}{number}"
                times[name].append(install(home, url, certificates))
        count = len(list((directory / "vault0" / "site").glob("*.whl")))
        direct, through = statistics.median(times["direct"]), statistics.median(times["vault"])
        print(f"1  pip download, {count} packages: direct {direct:.2f} s, warm vault {through:.2f} s", end="")
        fastest = min(times["vault"]) / min(times["direct"])
        print(f" ({through / direct:.2f} of direct; {fastest:.2f} by the fastest of {INSTALLS})")
    finally:
        vault.end()


def install(home: Path, index: str, certificates: str | None) -> float:
    """Seconds for all of the tree without a cache: unpacking would cost the same again, whoever it came from."""
    began = time.monotonic()
    done = pip(
        home, "download", "--no-input", "--no-cache-dir", "--only-binary", ":all:", "--dest", str(home / "site"),
        "--index-url", index, *TREE,
        HTTP_PROXY="", HTTPS_PROXY="", **({"PIP_CERT": certificates} if certificates else {}),
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout[-2000:])
    return time.monotonic() - began


def index_of(directory: Path, name: str, body: bytes) -> Nginx:
    """An nginx that is an index with one project, ``large-project``."""
    root = directory / f"{name}-files" / "simple" / "large-project"
    root.mkdir(parents=True)
    (root / "index.json").write_bytes(body)
    (root / "index.json.gz").write_bytes(gzip.compress(body, 6))
    return Nginx(
        directory,
        name,
        f"root {directory / f'{name}-files'}; index index.json; types {{ }} default_type {JSON};",
        "gzip_static off;",
    )


def fetch(url: str, *fields: str) -> tuple[float, int]:
    """Seconds for ``REPEATS`` downloads on one connection, and the bytes of each."""
    headers = [argument for field in fields for argument in ("-H", field)]
    command = ["curl", "-sSf", "-o", "/dev/null", "-w", "%{size_download}\n", *headers, f"{url}?[1-{REPEATS}]"]
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return time.monotonic() - began, int(done.stdout.split()[-1])


def pages(directory: Path) -> None:
    """Figure 2."""
    nginx = index_of(directory, "pages", large(5000))
    vault = start(directory, "paging", f"{nginx.url}/simple/")
    try:
        page = f"{vault.url}/pypi/simple/large-project/"
        for name, fields in {"plain": (), "gzip": ("Accept-Encoding: gzip",)}.items():
            asked = (f"Accept: {JSON}", *fields)
            size = fetch(page, *asked)[1]
            # nginx serves a file of just this size.
            same = directory / "pages-files" / f"{name}.bin"
            same.write_bytes(ask(vault.port, "/pypi/simple/large-project/", dict(f.split(": ") for f in asked)).body)
            settle()
            rates: dict[str, list[float]] = {"vault": [], "nginx": []}
            for _ in range(ROUNDS):
                rates["nginx"].append(REPEATS / fetch(f"{nginx.url}/{name}.bin")[0])
                rates["vault"].append(REPEATS / fetch(page, *asked)[0])
            ours, theirs = (statistics.median(rates[one]) for one in ("vault", "nginx"))
            print(f"2  warm page, 5,000 files, {name} ({size} bytes): vault {ours:.0f}/s, nginx {theirs:.0f}/s", end="")
            print(f" (ratio {ours / theirs:.2f})")
    finally:
        vault.end()
        nginx.end()


def crowd(directory: Path) -> None:
    """Figure 3."""
    origin = Origin()
    origin.put("/simple/large-project/", content=large(1000), content_type=JSON, default=Answer(delay=0.5))
    vault = start(directory, "crowd", f"{origin.url}/simple/")
    try:
        began = time.monotonic()
        replies = together(100, lambda number: ask(vault.port, "/pypi/simple/large-project/", {"Accept": JSON}))
        seconds = time.monotonic() - began
        bodies = {reply.body for reply in replies if reply.status == 200}
        print(f"3  100 cold clients: {len(origin.requests())} upstream request, {len(bodies)} body, {seconds:.2f} s")
    finally:
        vault.end()
        origin.stop()


def stalls(directory: Path) -> None:
    """Figure 4."""
    nginx = index_of(directory, "stalls", large(10_000))
    vault = start(directory, "stalling", f"{nginx.url}/simple/")
    waits: list[float] = []
    done = threading.Event()

    def poll() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", vault.port)
        while not done.is_set():
            began = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            waits.append(time.monotonic() - began)
            time.sleep(0.005)
        connection.close()

    try:
        poller = threading.Thread(target=poll)
        poller.start()
        time.sleep(1)
        quiet = max(waits)
        waits.clear()
        began = time.monotonic()
        for accept in (JSON, "text/html"):
            # In a process of its own, so that it takes nothing of what is measured.
            fetch_once(f"{vault.url}/pypi/simple/large-project/", f"Accept: {accept}", "Accept-Encoding: gzip")
        wheel = "large_project-1.1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
        ask(vault.port, f"/pypi/files/{wheel}")  # makes the table of links
        seconds = time.monotonic() - began
        done.set()
        poller.join()
        print(
            f"4  a page with 10,000 files, both forms, gzip and links, made in {seconds:.2f} s: others waited", end=""
        )
        worst = sorted(waits)
        print(
            f" at most {worst[-1] * 1000:.1f} ms (99th percentile {worst[int(len(worst) * 0.99)] * 1000:.1f} ms,"
            f" {len(waits)} asked; {quiet * 1000:.1f} ms before)"
        )
    finally:
        done.set()
        vault.end()
        nginx.end()


def fetch_once(url: str, *fields: str) -> None:
    """One download by curl."""
    headers = [argument for field in fields for argument in ("-H", field)]
    subprocess.run(["curl", "-sSf", "-o", "/dev/null", *headers, url], stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
