"""skopeo, podman, buildah, docker and containerd pull through a vault: cold, warm, and with the upstream gone."""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.daemons import Daemon, DockerRegistry, client_environment, need
from tests.functional.images import Image, make_image, make_index
from tests.functional.vault_process import VaultProcess, eventually

STATES = ("cold", "warm", "upstream gone")


class Stage:
    """What the tests of a class share: an upstream registry, a vault before it, and what else the class starts.

    Trial has no fixtures of classes: the stage of a class stands until another class's is set up, or the run ends.
    """

    standing: Stage | None = None

    def __init__(self, owner: type[ContainerCase]) -> None:
        if Stage.standing is not None:
            Stage.standing.strike()
        self.owner = owner
        self.directory = Path(tempfile.mkdtemp(prefix="vault-test-"))
        self.daemons: list[Daemon] = []
        self.vault: VaultProcess | None = None
        Stage.standing = self
        atexit.register(self.strike)

    def strike(self) -> None:
        """End everything, in the order that lets clients go first."""
        atexit.unregister(self.strike)
        Stage.standing = None
        for daemon in reversed(self.daemons):
            daemon.stop()
        if self.vault is not None:
            self.vault.end()
        shutil.rmtree(self.directory, ignore_errors=True)


class ContainerCase(SynchronousTestCase):
    """A test with a real upstream registry, a vault before it and, if need be, a daemon that pulls.

    Each test pulls images of its own, whose requests are counted at the upstream.
    """

    timeout = 120
    needed: tuple[str, ...] = ()
    needs_root = False
    stage: Stage
    upstream: DockerRegistry
    vault: VaultProcess

    def setUp(self) -> None:
        need(*self.needed, root=self.needs_root)
        if Stage.standing is None or Stage.standing.owner is not type(self):
            self._set_up_stage(Stage(type(self)))
        assert Stage.standing is not None and Stage.standing.vault is not None
        self.stage = Stage.standing
        self.directory = self.stage.directory
        self.vault = Stage.standing.vault
        upstream = self.stage.daemons[0]
        assert isinstance(upstream, DockerRegistry)
        self.upstream = upstream
        if self.upstream.process.poll() is not None:
            self.bring_upstream_back()

    def _set_up_stage(self, stage: Stage) -> None:
        try:
            upstream = DockerRegistry(stage.directory / "upstream")
            stage.daemons.append(upstream)
            directory = stage.directory / "vault"
            directory.mkdir()
            settings = {
                "prefix": "/dockerhub/",
                "registry_url": f"http://{upstream.host}",
                "namespace": "docker.io",
                "ttl": 0,  # each pull asks whether the tag has moved
                "stale_while_revalidate": 0,
                "retries": 0,
            }
            stage.vault = VaultProcess(directory, {"backends": [{"type": "dockerhub", "config": settings}]})
            stage.vault.start()
            self.set_up_client(stage)
        except BaseException:
            stage.strike()
            raise

    def set_up_client(self, stage: Stage) -> None:
        """Start what the tests of the class share besides."""

    def bring_upstream_back(self) -> None:
        """Start the upstream again where a test before has ended it."""
        self.upstream = self.stage.daemons[0] = DockerRegistry(self.upstream.directory, port=self.upstream.port)

    def run_client(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a client; it must succeed."""
        done = self.try_client(*command, **variables)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stderr[-2000:]}\n{self.vault.log()[-3000:]}")
        return done

    def try_client(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a client."""
        variables.setdefault("XDG_RUNTIME_DIR", str(self.directory))
        return subprocess.run(
            command, cwd=self.directory, env=client_environment(self.directory, **variables), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def push(self, name: str, seed: int, docker: bool = False) -> Image:
        """Have an image of two architectures upstream."""
        image = make_index(make_image(seed), make_image(seed + 1, (9000,), "arm64"))
        return self.upstream.push(name, image, docker=docker)

    def in_each_state(self, name: str, image: Image, pull: Any, forget: Any) -> None:
        """Pull three times, forgetting what was pulled between; the upstream gives each thing once."""
        for state in STATES:
            if state == "upstream gone":
                self.upstream.stop()
            pull()
            forget()
            if state != "upstream gone":
                self.assert_fetched_once(name, image)
        self.assertNotIn("Traceback", self.vault.log())

    def assert_fetched_once(self, name: str, image: Image) -> None:
        """The tag, the platform's manifest and its blobs were got once each from the upstream."""
        chosen = image.children[0]
        self.assertEqual(self.upstream.asked("GET", f"/v2/{name}/manifests/latest"), 1)
        self.assertEqual(self.upstream.asked("GET", f"/v2/{name}/manifests/{image.digest}"), 0)
        self.assertEqual(self.upstream.asked("GET", f"/v2/{name}/manifests/{chosen.digest}"), 1)
        for blob in [chosen.config, *chosen.layers]:
            self.assertEqual(self.upstream.asked("GET", f"/v2/{name}/blobs/{blob}"), 1)

    @property
    def host(self) -> str:
        """The vault's own name."""
        return f"127.0.0.1:{self.vault.port}"

    @property
    def registries_conf(self) -> dict[str, str]:
        """A registries.conf that makes the vault a mirror of Docker Hub, for skopeo, podman and buildah."""
        file = self.directory / "registries.conf"
        file.write_text(
            '[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:9"\n'
            f'[[registry.mirror]]\nlocation = "{self.host}/dockerhub"\ninsecure = true\n'
            f'[[registry]]\nlocation = "{self.host}"\ninsecure = true\n'
        )
        return {"CONTAINERS_REGISTRIES_CONF": str(file)}


class SkopeoTests(ContainerCase):
    """skopeo."""

    needed = ("skopeo",)

    @property
    def skopeo(self) -> list[str]:
        """The command with a configuration of its own."""
        return [
            "skopeo",
            "--insecure-policy",
            "--registries-conf",
            self.registries_conf["CONTAINERS_REGISTRIES_CONF"],
        ]

    def copy(self, source: str) -> None:
        """Copy an image into a directory, as skopeo does for any user."""
        target = self.directory / "copied"
        self.run_client(*self.skopeo, "copy", f"docker://{source}", f"dir:{target}")
        self.copied = json.loads((target / "manifest.json").read_text())

    def forget(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.directory / "copied")

    def test_mirror(self) -> None:
        """skopeo copies an image of docker.io through the vault as its mirror."""
        image = self.push("library/mirrored", 10)
        self.in_each_state("library/mirrored", image, lambda: self.copy("docker.io/library/mirrored"), self.forget)

    def test_own_name(self) -> None:
        """skopeo copies by the vault's own name, with a Docker manifest list this time."""
        image = self.push("library/own", 20, docker=True)
        self.in_each_state("library/own", image, lambda: self.copy(f"{self.host}/dockerhub/library/own"), self.forget)

    def test_inspect(self) -> None:
        """skopeo inspect lists the tags of a repository that has more than one page of them."""
        image = make_image(30, (100,))
        for number in range(3):
            self.upstream.push("library/tagged", image, f"tag-{number}")
        done = self.run_client(*self.skopeo, "inspect", f"docker://{self.host}/library/tagged:tag-1")
        told = json.loads(done.stdout)
        self.assertEqual((told["Digest"], sorted(told["RepoTags"])), (image.digest, ["tag-0", "tag-1", "tag-2"]))

    def test_absent(self) -> None:
        """skopeo is told that an image is not there, in words of the registry."""
        done = self.try_client(*self.skopeo, "inspect", f"docker://{self.host}/library/absent")
        self.assertEqual(done.returncode, 1)
        self.assertIn("manifest unknown", done.stderr)


class PodmanTests(ContainerCase):
    """podman and buildah, each with a storage of its own."""

    needed = ("podman", "buildah", "skopeo")
    needs_root = True

    @property
    def storage(self) -> list[str]:
        """Where images are kept, so that nothing of the machine's is touched."""
        return [
            "--root", str(self.directory / "storage"), "--runroot", str(self.directory / "runroot"),
            "--storage-driver", "vfs",
        ]  # fmt: skip

    def test_podman(self) -> None:
        """podman pulls an image of docker.io through the vault as its mirror."""
        image = self.push("library/podman", 40)
        pull = ("podman", "--cgroup-manager=cgroupfs", *self.storage, "pull", "-q", "docker.io/library/podman")
        forget = ("podman", "--cgroup-manager=cgroupfs", *self.storage, "rmi", "-f", "docker.io/library/podman")
        self.in_each_state(
            "library/podman",
            image,
            lambda: self.run_client(*pull, **self.registries_conf),
            lambda: self.run_client(*forget, **self.registries_conf),
        )

    def test_buildah(self) -> None:
        """buildah pulls by the vault's own name."""
        image = self.push("library/buildah", 50)
        name = f"{self.host}/dockerhub/library/buildah"
        self.in_each_state(
            "library/buildah",
            image,
            lambda: self.run_client("buildah", *self.storage, "pull", "-q", name, **self.registries_conf),
            lambda: self.run_client("buildah", *self.storage, "rmi", "-f", name, **self.registries_conf),
        )


class DockerTests(ContainerCase):
    """dockerd with the vault as its registry mirror."""

    needed = ("dockerd", "docker", "skopeo")
    needs_root = True
    # Debian's, which has BuildKit in it, where another one comes first in the path.
    command = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"

    def set_up_client(self, stage: Stage) -> None:
        """Start dockerd."""
        assert stage.vault is not None
        directory = stage.directory / "docker"
        config = directory / "daemon.json"
        directory.mkdir()
        config.write_text(json.dumps({"registry-mirrors": [stage.vault.url]}))
        command = [
            "dockerd", "--storage-driver=vfs", "--iptables=false", "--ip6tables=false", "--bridge=none",
            "--config-file", str(config), "--data-root", str(directory / "data"),
            "--exec-root", str(directory / "exec"), "--pidfile", str(directory / "pid"),
            "-H", f"unix://{directory}/socket",
        ]  # fmt: skip
        ready = lambda: self.docker("version", directory=stage.directory).returncode == 0  # noqa: E731 - asked again
        stage.daemons.append(Daemon(command, directory, ready))

    def docker(self, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the docker command on this daemon."""
        home = directory or self.directory
        variables = client_environment(home, DOCKER_HOST=f"unix://{home}/docker/socket", DOCKER_BUILDKIT="1")
        return subprocess.run(
            [self.command, *arguments], env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def must(self, *arguments: str) -> str:
        """Run the docker command; it must succeed."""
        done = self.docker(*arguments)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr[-2000:]}\n{self.vault.log()[-3000:]}")
        return done.stdout

    def test_mirror(self) -> None:
        """docker pull of an image of Docker Hub goes through registry-mirrors."""
        image = self.push("library/mirrored", 60)
        self.in_each_state(
            "library/mirrored", image, lambda: self.must("pull", "mirrored"), lambda: self.must("rmi", "mirrored")
        )

    def test_own_name(self) -> None:
        """docker pull by the vault's own name, with the prefix in it, needs no setting on a loopback address."""
        image = self.push("library/own", 70, docker=True)
        name = f"{self.host}/dockerhub/library/own"
        self.in_each_state("library/own", image, lambda: self.must("pull", name), lambda: self.must("rmi", name))

    def test_build(self) -> None:
        """docker build with BuildKit takes its base image through registry-mirrors, and names Docker Hub by ns."""
        image = self.push("library/base", 75)
        context = self.directory / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM base\nLABEL built=here\n")
        self.in_each_state(
            "library/base",
            image,
            lambda: self.must("build", "--no-cache", "--pull", "-q", "-t", "built", str(context)),
            lambda: (self.must("rmi", "built"), self.must("builder", "prune", "-af")),
        )
        log = self.vault.log()
        self.assertIn("/v2/library/base/manifests/latest?ns=docker.io", log)
        layer = image.children[0].layers[0]
        self.assertEqual(log.count(f"GET /v2/library/base/blobs/{layer}?ns=docker.io"), len(STATES))

    def test_push(self) -> None:
        """docker push to the vault is refused with words."""
        self.push("library/pushed", 80)
        name = f"{self.host}/dockerhub/library/pushed"
        self.must("pull", name)
        self.must("tag", name, f"{self.host}/dockerhub/library/mine")
        done = self.docker("push", f"{self.host}/dockerhub/library/mine")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("only pulled from", done.stderr)


class ContainerdTests(ContainerCase):
    """containerd with a hosts.toml."""

    needed = ("containerd", "ctr", "skopeo")
    needs_root = True

    def set_up_client(self, stage: Stage) -> None:
        """Start containerd."""
        directory = stage.directory / "containerd"
        directory.mkdir()
        config = directory / "config.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        command = [
            "containerd", "--config", str(config), "--root", str(directory / "root"),
            "--state", str(directory / "state"), "--address", str(directory / "socket"),
        ]  # fmt: skip
        ready = lambda: self.ctr("version", directory=stage.directory).returncode == 0  # noqa: E731 - asked again
        stage.daemons.append(Daemon(command, directory, ready))

    def ctr(self, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run ctr on this daemon."""
        home = directory or self.directory
        return subprocess.run(
            ["ctr", "--address", str(home / "containerd" / "socket"), *arguments],
            env=client_environment(home), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip

    def must(self, *arguments: str) -> str:
        """Run ctr; it must succeed."""
        done = self.ctr(*arguments)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr[-2000:]}\n{self.vault.log()[-3000:]}")
        return done.stdout

    def hosts(self, name: str, text: str) -> Path:
        """A directory of hosts.toml files with one for ``name``."""
        directory = self.directory / "hosts" / self.id().rpartition(".")[2]
        (directory / name).mkdir(parents=True)
        (directory / name / "hosts.toml").write_text(text)
        return directory

    def pull(self, image: str, hosts: Path) -> None:
        """Pull with these hosts."""
        self.must(
            "images", "pull", "--snapshotter", "native", "--platform", "linux/amd64", "--hosts-dir", str(hosts), image
        )

    def forget(self, image: str) -> None:
        """Remove an image with its content."""
        self.must("images", "rm", "--sync", image)
        eventually(lambda: not self.must("content", "ls", "-q").strip(), 10, "an empty content store")

    def test_default(self) -> None:
        """containerd pulls any registry's image through _default/hosts.toml, told apart by ns."""
        image = self.push("library/any", 90)
        text = f'server = "{self.vault.url}"\n[host."{self.vault.url}"]\n  capabilities = ["pull", "resolve"]\n'
        hosts = self.hosts("_default", text)
        name = "docker.io/library/any:latest"
        self.in_each_state("library/any", image, lambda: self.pull(name, hosts), lambda: self.forget(name))

    def test_prefix(self) -> None:
        """containerd pulls through a host with a path, as a mirror of docker.io alone."""
        image = self.push("library/prefixed", 100)
        hosts = self.hosts("docker.io", f'[host."{self.vault.url}/dockerhub"]\n  capabilities = ["pull", "resolve"]\n')
        name = "docker.io/library/prefixed:latest"
        self.in_each_state("library/prefixed", image, lambda: self.pull(name, hosts), lambda: self.forget(name))

    def test_unknown_registry(self) -> None:
        """An image of a registry that no backend has is not answered with another registry's image of that name."""
        self.push("library/alike", 110)
        hosts = self.hosts(
            "_default",
            f'server = "http://127.0.0.1:9"\n[host."{self.vault.url}"]\n  capabilities = ["pull", "resolve"]\n',
        )
        done = self.ctr("images", "pull", "--hosts-dir", str(hosts), "registry.example/library/alike:latest")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ns=registry.example", self.vault.log())
        self.assertNotIn("alike", self.must("images", "ls", "-q"))
