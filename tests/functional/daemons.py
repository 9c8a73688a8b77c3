"""Programs that serve while tests run: Debian's docker-registry, dockerd and containerd, each ended by its id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.functional.clients import ask
from tests.functional.images import DOCKER_LIST, DOCKER_MANIFEST, Image, write_layout
from tests.functional.vault_process import environment, eventually, free_port


def need(*clients: str, root: bool = False) -> None:
    """Skip the test where a client is not installed, or root is needed and we are not root."""
    for client in clients:
        if shutil.which(client, path=search_path()) is None:
            raise SkipTest(f"{client} is not installed")
    if root and os.geteuid() != 0:
        raise SkipTest(f"{clients[0]} needs root")


def search_path() -> str:
    """Where programs are; daemons are in directories that a user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


NOWHERE = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost"}
"""Variables that keep a client from falling back to a real registry."""


def client_environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a client that is to talk to this machine alone."""
    return environment(PATH=search_path(), HOME=str(home), **NOWHERE, **variables)


class Daemon:
    """A process with a log under ``directory``; ``ready`` says when it serves."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        ready: Callable[[], object],
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log_file = directory / "log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=client_environment(directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(lambda: self.process.poll() is not None or ready(), 30, f"a ready {command[0]}")
            if self.process.poll() is not None:
                raise AssertionError(f"{command[0]} ended")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}:\n{self.log()[-3000:]}") from None

    def log(self) -> str:
        """What it has printed."""
        return self.log_file.read_text(errors="replace")

    def stop(self) -> None:
        """End it, and what it has started."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        # Children in its own process group, such as the containerd of a dockerd.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            time.sleep(0.2)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(15)


REGISTRY = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


class DockerRegistry(Daemon):
    """Debian's docker-registry on ``port``; ``proxy`` makes it a pull-through cache of that URL."""

    def __init__(self, directory: Path, proxy: str | None = None, port: int | None = None) -> None:
        need("docker-registry", "skopeo")
        self.port = port or free_port()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        more = "" if proxy is None else f'proxy: {{remoteurl: "{proxy}"}}'
        config = directory / "config.yml"
        config.write_text(REGISTRY.format(root=directory / "data", port=self.port, more=more))
        super().__init__(
            ["docker-registry", "serve", str(config)], directory, lambda: ask(self.port, "/v2/").status == 200
        )

    @property
    def host(self) -> str:
        """Its name in image names."""
        return f"127.0.0.1:{self.port}"

    def push(self, name: str, image: Image, tag: str = "latest", docker: bool = False) -> Image:
        """Put an image into it, through skopeo; ``docker`` turns it into Docker's own media types.  As it is there."""
        layout = self.directory / "layouts" / f"{name.replace('/', '_')}-{tag}"
        write_layout(layout, image, tag)
        form = ["--format", "v2s2"] if docker else ["--preserve-digests"]
        subprocess.run(
            [
                "skopeo", "--insecure-policy", "copy", "--all", *form, "--dest-tls-verify=false",
                f"oci:{layout}:{tag}", f"docker://{self.host}/{name}:{tag}",
            ],
            env=client_environment(self.directory),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        return self._pushed(name, tag) if docker else image

    def _pushed(self, name: str, reference: str) -> Image:
        """An image as it is in the registry, without its blobs."""
        reply = ask(self.port, f"/v2/{name}/manifests/{reference}", {"Accept": f"{DOCKER_LIST}, {DOCKER_MANIFEST}"})
        children = [self._pushed(name, part["digest"]) for part in json.loads(reply.body).get("manifests", [])]
        return Image(reply.body, reply.headers["content-type"], children=children)

    def asked(self, method: str, what: str) -> int:
        """How often a vault has asked it something, by its access log."""
        lines = [line for line in self.log().splitlines() if "artifact-vault/" in line]
        return sum(f'"{method} ' in line and what in line for line in lines)
