"""Guest images: what a manifest says of one, and whether the files on disk still are what it says.

An image is a kernel and an initramfs of bounded size, each with its SHA-256; their formats are explicit
(ELF and newc), so there is no header to guess from and no backing file to follow.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.adapter import OfferedImage
from hypervisor.errors import ImageError

MANIFEST_VERSION = 1
MANIFEST_NAME = "manifest.json"
MANIFEST_MAX_BYTES = 65_536
# A distribution's kernel is some 60 MB unpacked, our initramfs some 10 MB; ten times that is no micro guest.
FILE_MAX_BYTES = 512 * 1024 * 1024
_REBUILD = "build it again with scripts/build_guest_image"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# The first bytes that a file of each format must have.
FORMATS = {"elf": b"\x7fELF", "newc": b"070701"}


@dataclass(frozen=True, slots=True)
class ImageFile:
    name: str
    format: str
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not re.match(r"[a-z0-9][a-z0-9._-]{0,63}\Z", self.name):
            raise ImageError(f"{self.name!r} cannot be an image's file", _REBUILD)
        if self.format not in FORMATS:
            raise ImageError(f"{self.format!r} is not a format that guests boot from", f"use {', '.join(FORMATS)}")
        if type(self.size_bytes) is not int or not 0 < self.size_bytes <= FILE_MAX_BYTES:
            raise ImageError(f"{self.name} has {self.size_bytes} bytes", f"at most {FILE_MAX_BYTES}")
        if not _SHA256.match(self.sha256):
            raise ImageError(f"{self.name} has no SHA-256", _REBUILD)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: `environments` is what a server may advertise for it, as (kind, name, version)."""

    id: str
    architecture: str
    environments: tuple[tuple[str, str, str], ...]
    memory_min_bytes: int
    kernel: ImageFile
    initramfs: ImageFile
    packages: tuple[tuple[str, str], ...]  # (name, version), for the audit log

    def offered(self) -> OfferedImage:
        return OfferedImage(self.id, self.environments, self.memory_min_bytes)

    def to_json(self) -> str:
        fields = {
            "version": MANIFEST_VERSION,
            "id": self.id,
            "architecture": self.architecture,
            "environments": [list(environment) for environment in self.environments],
            "memory_min_bytes": self.memory_min_bytes,
            "kernel": _file_fields(self.kernel),
            "initramfs": _file_fields(self.initramfs),
            "packages": [list(package) for package in self.packages],
        }
        return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def parse_manifest(text: str) -> Manifest:
    """A manifest from its JSON; ImageError says what is wrong with it."""
    try:
        fields: dict[str, Any] = json.loads(text)
        if fields["version"] != MANIFEST_VERSION:
            raise ImageError(f"manifest version {fields['version']!r} is not known here", _REBUILD)
        environments = tuple((str(kind), str(name), str(version)) for kind, name, version in fields["environments"])
        packages = tuple((str(name), str(version)) for name, version in fields["packages"])
        return Manifest(
            str(fields["id"]),
            str(fields["architecture"]),
            environments,
            int(fields["memory_min_bytes"]),
            ImageFile(**fields["kernel"]),
            ImageFile(**fields["initramfs"]),
            packages,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"the manifest cannot be read ({type(error).__name__}: {error})", _REBUILD) from None


@dataclass(frozen=True, slots=True)
class Image:
    """An image on disk, whose files were checked against the manifest."""

    manifest: Manifest
    folder: Path

    @property
    def kernel_path(self) -> Path:
        return self.folder / self.manifest.kernel.name

    @property
    def initramfs_path(self) -> Path:
        return self.folder / self.manifest.initramfs.name


def load_image(folder: Path) -> Image:
    """Read and check an image; hashing it takes some 0.1 s, so do it once a process."""
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MANIFEST_MAX_BYTES:
            raise ImageError(f"{path} is too large for a manifest", _REBUILD)
        manifest = parse_manifest(path.read_text("utf-8"))
    except OSError as error:
        raise ImageError(f"there is no image in {folder} ({error.strerror})", "run scripts/build_guest_image") from None
    except UnicodeDecodeError:
        raise ImageError(f"{path} is not text", _REBUILD) from None
    for described in (manifest.kernel, manifest.initramfs):
        check_file(folder / described.name, described)
    return Image(manifest, folder)


def check_file(path: Path, described: ImageFile) -> None:
    """Refuse a file that is not byte for byte what was described."""
    try:
        if path.is_symlink() or not path.is_file():
            raise ImageError(f"{path} is not a plain file", _REBUILD)
        if path.stat().st_size != described.size_bytes:
            raise ImageError(f"{path} has {path.stat().st_size} bytes, not {described.size_bytes}", _REBUILD)
        with path.open("rb") as stream:
            start = stream.read(8)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror})", _REBUILD) from None
    if not start.startswith(FORMATS[described.format]):
        raise ImageError(f"{path} is not {described.format}", _REBUILD)
    if digest != described.sha256:
        raise ImageError(f"{path} was changed: its SHA-256 is {digest}", _REBUILD)


def describe_file(path: Path, format: str) -> ImageFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ImageFile(path.name, format, path.stat().st_size, digest)


def _file_fields(described: ImageFile) -> dict[str, object]:
    return {
        "name": described.name,
        "format": described.format,
        "size_bytes": described.size_bytes,
        "sha256": described.sha256,
    }
