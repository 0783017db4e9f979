"""Builds the micro guest on the spot, from the distribution's own packages: nothing prebuilt is trusted.

Downloads a kernel, busybox, dropbear and the libraries it needs with apt (unpacked, never installed), and
writes a vmlinux, an initramfs and a manifest. Safe when run twice at once: the second waits for the lock and
finds the work done. What the guest does at boot is in the files of `guest/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hypervisor import cpio, image, kernel_image
from hypervisor.errors import ImageError, PrivilegeError, SoftwareMissingError

IMAGE_ID = "micro"
# Below this the kernel and the unpacked initramfs leave too little to log in.
MEMORY_MIN_BYTES = 96 * 1024 * 1024
# Part of the finished folder's name: raise it when what is built changes, and old caches are left alone.
BUILD_VERSION = 1
# The distributions' kernels for virtual machines, best first (Debian, then Ubuntu).
KERNEL_PACKAGES = ("linux-image-cloud-amd64", "linux-image-kvm", "linux-image-virtual", "linux-image-generic")
MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "virtio_balloon", "ext4", "crc32c_generic", "button", "evdev")
_COMMAND_TIMEOUT_S = 600
_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_GUEST_FILES = (
    ("init", "init"),
    ("rc", "etc/xeno/rc"),
    ("inittab", "etc/inittab"),
    ("power", "etc/acpi/PWRF/00000080"),
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str


def default_cache() -> Path:
    """Where images are kept: the service's cache for root, else the user's."""
    if os.geteuid() == 0 and "XDG_CACHE_HOME" not in os.environ:
        return Path("/var/cache/xenonode")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenonode"


def image_folder(cache: Path) -> Path:
    return cache / "images" / f"{IMAGE_ID}-{BUILD_VERSION}"


def build(cache: Path, progress: Progress = lambda line: None) -> image.Image:
    """The checked micro guest, built if it is not there yet (some 10 s and 40 MB of downloads)."""
    if platform.machine() != "x86_64":
        raise ImageError(f"the micro guest is built for x86_64 only, not {platform.machine()}", "use an x86_64 machine")
    folder = image_folder(cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f"{folder.name}.lock", progress):
        if (folder / image.MANIFEST_NAME).exists():
            with contextlib.suppress(ImageError):
                found = image.load_image(folder)
                progress(f"guest image is there: {folder}")
                return found
            progress("guest image does not match its manifest, building it again")
            shutil.rmtree(folder)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as scratch:
            _build(Path(scratch), folder, progress)
    progress(f"guest image built: {folder}")
    return image.load_image(folder)


def _build(scratch: Path, folder: Path, progress: Progress) -> None:
    packages = _download(scratch, progress)
    root = scratch / "unpacked"
    root.mkdir()
    for path in sorted(scratch.glob("*.deb")):
        progress(f"unpacking {path.name.split('_')[0]}")
        _run("dpkg-deb", "-x", str(path), str(root))
    done = scratch / "done"
    done.mkdir()
    [kernel] = sorted((root / "boot").glob("vmlinuz-*"))[:1]
    release = kernel.name.removeprefix("vmlinuz-")
    progress(f"unpacking kernel {release}")
    (done / "vmlinux").write_bytes(kernel_image.unpack_kernel(kernel.read_bytes()))
    progress("packing the initramfs")
    (done / "initramfs").write_bytes(cpio.archive(initramfs_entries(root, release)))
    manifest = image.Manifest(
        IMAGE_ID,
        "x86_64",
        environments(Path("/etc/os-release").read_text("utf-8"), release),
        MEMORY_MIN_BYTES,
        image.describe_file(done / "vmlinux", "elf"),
        image.describe_file(done / "initramfs", "newc"),
        tuple((package.name, package.version) for package in packages),
    )
    (done / image.MANIFEST_NAME).write_text(manifest.to_json(), "utf-8")
    for path in done.iterdir():
        path.chmod(0o644)
    done.chmod(0o755)
    done.rename(folder)


def environments(os_release: str, kernel_release: str) -> tuple[tuple[str, str, str], ...]:
    """What the guest is, from the distribution whose packages it is made of: ("os", "linux", "6.1.0") and so on."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    name, version = fields.get("ID", "").strip('"'), fields.get("VERSION_ID", "").strip('"')
    if not name or not version:
        raise ImageError("/etc/os-release names no distribution", "build on Debian or Ubuntu")
    return (("os", "linux", kernel_release.split("-")[0]), ("os", name, version))


def initramfs_entries(root: Path, release: str) -> Iterator[cpio.Entry]:
    """The guest's whole file system, from unpacked packages."""
    folders = (
        "bin dev etc etc/acpi etc/acpi/PWRF etc/xeno etc/dropbear lib lib/modules lib/x86_64-linux-gnu lib64 "
        "mnt proc root run sys tmp usr usr/bin usr/sbin var var/log"
    )
    yield from (cpio.directory(path) for path in folders.split())
    yield cpio.device("dev/console", 5, 1)
    yield cpio.device("dev/null", 1, 3, 0o666)
    yield cpio.file("bin/busybox", _find(root, "bin/busybox", "usr/bin/busybox").read_bytes(), 0o755)
    yield cpio.file("usr/sbin/dropbear", _find(root, "usr/sbin/dropbear", "usr/bin/dropbear").read_bytes(), 0o755)
    libraries: dict[str, Path] = {}
    for folder in _LIBRARY_FOLDERS:
        for path in sorted((root / folder).glob("*.so*")):
            libraries.setdefault(path.name, path.resolve())
    for name, path in sorted(libraries.items()):
        if path.is_file():
            yield cpio.file(f"lib/x86_64-linux-gnu/{name}", path.read_bytes(), 0o755)
    yield cpio.symlink("lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    tree = _find(root, f"lib/modules/{release}", f"usr/lib/modules/{release}")
    modules = kernel_image.find_modules(tree)
    contents: dict[str, bytes] = {}
    depends: dict[str, tuple[str, ...]] = {}
    pending = list(MODULES)
    while pending:
        name = pending.pop()
        if name in depends or name not in modules:
            continue
        contents[name] = kernel_image.decompress(modules[name].read_bytes())
        depends[name] = kernel_image.module_depends(contents[name])
        pending += depends[name]
    order = kernel_image.load_order(MODULES, depends)
    for name in order:
        yield cpio.file(f"lib/modules/{name}.ko", contents[name])
    yield cpio.file("etc/xeno/modules", "".join(f"{name}.ko\n" for name in order).encode())
    yield cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    yield cpio.file("etc/group", b"root:x:0:\n")
    yield cpio.file("etc/shells", b"/bin/sh\n")
    yield cpio.file("etc/profile", b"export PATH=/bin:/usr/bin:/usr/sbin\n")
    yield cpio.file("etc/os-release", Path("/etc/os-release").read_bytes())
    for source, target in _GUEST_FILES:
        yield cpio.file(target, resources.files("hypervisor").joinpath("guest", source).read_bytes(), 0o755)


def _download(scratch: Path, progress: Progress) -> list[Package]:
    """Fetch every package needed into `scratch`; apt's lists are refreshed once if they know too little."""
    try:
        _fetch(scratch, progress)
    except ImageError:
        # The lists are absent, or name a version that is gone.
        if os.geteuid() != 0:
            raise PrivilegeError("apt's package lists are missing or old", "sudo apt-get update, then again") from None
        progress("refreshing apt's lists")
        _run("apt-get", "-q", "update")
        _fetch(scratch, progress)
    packages = []
    for path in sorted(scratch.glob("*.deb")):
        fields = _run("dpkg-deb", "-W", "--showformat=${Package}\t${Version}", str(path)).split("\t")
        packages.append(Package(fields[0], fields[1]))
    return packages


def _fetch(scratch: Path, progress: Progress) -> None:
    kernel = _kernel_packages()
    if not kernel:
        raise ImageError("no kernel package was found", f"one of {', '.join(KERNEL_PACKAGES)} is needed")
    names = sorted({*kernel, "busybox-static", "dropbear-bin", *_libraries("dropbear-bin")})
    progress(f"downloading {', '.join(names)}")
    _run("apt-get", "-q", "download", *names, cwd=scratch)


def _kernel_packages() -> list[str]:
    """The real kernel package behind the first meta package that apt knows, and its modules where they are apart."""
    for meta in KERNEL_PACKAGES:
        kernels = [name for name in _depends(meta) if name.startswith("linux-image-")]
        if kernels:
            return [kernels[0], *(name for name in _depends(kernels[0]) if name.startswith("linux-modules-"))]
    return []


def _depends(package: str) -> list[str]:
    try:
        lines = _run("apt-cache", "depends", package).splitlines()
    except ImageError:
        return []  # apt-cache fails for a package that this distribution has not got
    return [line.removeprefix("  Depends: ") for line in lines if line.startswith("  Depends: ")]


def _libraries(package: str) -> list[str]:
    """Packages whose libraries a package links to, at any depth."""
    options = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    lines = _run("apt-cache", "depends", "--recurse", *options, package).splitlines()
    return [line for line in lines if line.startswith(("lib", "zlib"))]


def _find(root: Path, *places: str) -> Path:
    for place in places:
        if (root / place).exists():
            return root / place
    raise ImageError(f"the packages hold no {places[0]}", "run apt-get update, then build again")


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S
        )
    except FileNotFoundError:
        raise SoftwareMissingError(f"{command[0]} is not installed", "build on Debian or Ubuntu") from None
    except subprocess.TimeoutExpired:
        raise ImageError(
            f"{command[0]} took more than {_COMMAND_TIMEOUT_S} s", "look at the network, try again"
        ) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ImageError(f"{' '.join(command[:3])} failed: {last[0]}", "run apt-get update, then try again")
    return done.stdout


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build of the guest image")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
