"""Container images made for tests: small layers, as an OCI image layout that real clients can read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(data: bytes) -> str:
    """The OCI digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Image:
    """A manifest or an index: its bytes and media type, and all that it needs, by digest."""

    manifest: bytes
    media_type: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    children: list[Image] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return digest_of(self.manifest)

    @property
    def layers(self) -> list[str]:
        """The digests of the layers."""
        return [layer["digest"] for layer in json.loads(self.manifest).get("layers", [])]

    @property
    def config(self) -> str:
        """The digest of the configuration."""
        return str(json.loads(self.manifest)["config"]["digest"])

    def all_blobs(self) -> dict[str, bytes]:
        """The blobs of this and of what is in it."""
        found = dict(self.blobs)
        for child in self.children:
            found.update(child.all_blobs())
        return found


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """How a manifest names some bytes."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def make_image(
    seed: int, sizes: tuple[int, ...] = (30_000, 200_000), architecture: str = "amd64", media_type: str = OCI_MANIFEST
) -> Image:
    """An image with one layer for each of ``sizes`` (bytes); the seed decides all of it."""
    docker = media_type == DOCKER_MANIFEST
    layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else OCI_LAYER
    layers, unpacked, blobs = [], [], {}
    for number, size in enumerate(sizes):
        tar = _tar(f"file-{number}", random.Random(f"{seed} {number}").randbytes(size))
        packed = gzip.compress(tar, 1, mtime=0)
        blobs[digest_of(packed)] = packed
        unpacked.append(digest_of(tar))
        layers.append(descriptor(packed, layer_type))
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/file-0"], "Labels": {"seed": str(seed)}},
            "rootfs": {"type": "layers", "diff_ids": unpacked},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "a test"} for _ in sizes],
        }
    )
    blobs[digest_of(config)] = config
    config_type = "application/vnd.docker.container.image.v1+json" if docker else OCI_CONFIG
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config, config_type),
        "layers": layers,
    }
    return Image(_json(document), media_type, blobs)


def make_index(*images: Image, media_type: str = OCI_INDEX) -> Image:
    """An index of images, for amd64, arm64 and so on."""
    names = ("amd64", "arm64", "ppc64le")
    manifests = [
        descriptor(image.manifest, image.media_type, platform={"os": "linux", "architecture": name})
        for image, name in zip(images, names, strict=False)
    ]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    return Image(_json(document), media_type, children=list(images))


def write_layout(directory: Path, image: Image, tag: str = "latest") -> None:
    """Write an OCI image layout with one tag."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes) -> None:
        (blobs / digest_of(data).partition(":")[2]).write_bytes(data)

    for part in [image, *image.children]:
        put(part.manifest)
    for blob in image.all_blobs().values():
        put(blob)
    named = descriptor(image.manifest, image.media_type, annotations={"org.opencontainers.image.ref.name": tag})
    (directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=2).encode()


def _tar(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()
