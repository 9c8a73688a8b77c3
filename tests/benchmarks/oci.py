"""Container images: vault against Debian's docker-registry as a pull-through cache, before the same upstream registry.

    python -m tests.benchmarks.oci [--pulls N] [--rounds N] [--size MB]

First N clients (skopeo) pull one image at the same time that is not cached: how often the upstream was asked for each
blob.  Then one client pulls it again and again, in turns from either.  Last, how long a manifest takes that is cached,
by tag and by digest, over one connection.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.benchmarks.common import median, scratch, settle
from tests.functional.daemons import DockerRegistry, client_environment
from tests.functional.images import OCI_INDEX, OCI_MANIFEST, Image, make_image, make_index
from tests.functional.vault_process import VaultProcess

NAME = "library/bench"
REQUESTS = 300


def start_vault(directory: Path, upstream: DockerRegistry) -> VaultProcess:
    """A vault with an empty cache; a tag stays fresh for a minute, as by default."""
    directory.mkdir()
    config = {"prefix": "/dockerhub/", "registry_url": f"http://{upstream.host}", "namespace": "docker.io"}
    vault = VaultProcess(
        directory, {"cache": {"min_free": 1}, "backends": [{"type": "dockerhub", "config": config}]}
    )  # fmt: skip
    vault.start()
    return vault


def pull(directory: Path, port: int, name: str) -> float:
    """Seconds of one pull by skopeo into a directory, which is removed."""
    target = directory / name
    began = time.monotonic()
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://127.0.0.1:{port}/{NAME}",
         f"dir:{target}"],
        env=client_environment(directory), stdin=subprocess.DEVNULL, check=True, timeout=300,
    )  # fmt: skip
    taken = time.monotonic() - began
    shutil.rmtree(target)
    return taken


def latency(port: int, reference: str) -> float:
    """Milliseconds of the median request for a manifest, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    fields = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}"}
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        connection.request("GET", f"/v2/{NAME}/manifests/{reference}", headers=fields)
        response = connection.getresponse()
        response.read()
        times.append(time.perf_counter() - began)
        if response.status != 200:
            raise SystemExit(f"{reference}: {response.status}")
    connection.close()
    return median(times) * 1000


def cold_pulls(directory: Path, vault: VaultProcess, upstream: DockerRegistry, image: Image, count: int) -> None:
    """Many at once, none of whom finds anything in the cache."""
    began = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda number: pull(directory, vault.port, f"cold-{number}"), range(count)))
    taken = time.monotonic() - began
    chosen = image.children[0]
    asked = [upstream.asked("GET", f"/blobs/{blob}") for blob in [chosen.config, *chosen.layers]]
    manifests = [upstream.asked("GET", f"/manifests/{what}") for what in ("latest", image.digest, chosen.digest)]
    print(f"{count} cold pulls at once: {taken:.1f} s; upstream GETs of each blob {asked} (wanted: 1 each)")
    print(f"upstream GETs of the tag, the index by digest, the manifest by digest: {manifests}")


def compare(what: str, unit: str, rounds: int, measures: dict[str, Callable[[], float]]) -> None:
    """Measure each in turns, and print the medians and their ratio."""
    values: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        names = list(measures) if number % 2 == 0 else list(reversed(measures))
        for name in names:
            values[name].append(measures[name]())
    vault, registry = median(values["vault"]), median(values["docker-registry"])
    pairs = zip(values["vault"], values["docker-registry"], strict=True)
    ratio = median([ours / theirs for ours, theirs in pairs])
    print(
        f"{what}: vault {vault:.2f} {unit}, docker-registry {registry:.2f} {unit}, ratio {vault / registry:.2f}; "
        f"median of the rounds' ratios {ratio:.2f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pulls", type=int, default=20, help="cold pulls at the same time")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=10, help="of each of four layers, in MB")
    arguments = parser.parse_args()
    size = arguments.size * 1_000_000
    image = make_index(make_image(1, (size, size, size, size)), make_image(2, (1000,), "arm64"))
    with scratch() as directory:
        upstream = DockerRegistry(directory / "upstream")
        upstream.push(NAME, image)
        registry = DockerRegistry(directory / "registry", proxy=f"http://{upstream.host}")
        vault = start_vault(directory / "vault", upstream)
        try:
            cold_pulls(directory, vault, upstream, image, arguments.pulls)
            pull(directory, registry.port, "cold")
            time.sleep(2)  # that registry writes what it has fetched behind
            settle()
            ports = {"vault": vault.port, "docker-registry": registry.port}
            warm = {name: partial(pull, directory, port, "warm") for name, port in ports.items()}
            compare("a warm pull with skopeo (wanted: 1.00 or less)", "s", arguments.rounds, warm)
            for reference in ("latest", image.digest):
                kind = "tag" if reference == "latest" else "digest"
                hits = {name: partial(latency, port, reference) for name, port in ports.items()}
                compare(f"a cached manifest by {kind} (wanted: 1.00 or less)", "ms", min(arguments.rounds, 5), hits)
        finally:
            vault.end()
            registry.stop()
            upstream.stop()


if __name__ == "__main__":
    main()
