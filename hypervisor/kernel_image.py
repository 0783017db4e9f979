"""A distribution's kernel package as what a guest needs: a plain vmlinux, and modules in dependency order.

Source: Linux Documentation/arch/x86/boot.rst (setup_sects, payload_offset and payload_length) and the
"depends=" entry of each module's .modinfo section. No kernel is installed and no depmod is run.
"""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from hypervisor.errors import ImageError, SoftwareMissingError

_SETUP_MAGIC = b"HdrS"
_ELF = b"\x7fELF"
_DEPENDS = re.compile(rb"(?:\A|\0)depends=([^\0]*)\0")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
}
_DECOMPRESS_TIMEOUT_S = 120


def unpack_kernel(image: bytes) -> bytes:
    """The vmlinux inside a bzImage."""
    if image.startswith(_ELF):
        return image
    if image[0x202:0x206] != _SETUP_MAGIC:
        raise ImageError("this is no x86 Linux kernel", "choose another kernel package")
    sectors = image[0x1F1] or 4
    offset = int.from_bytes(image[0x248:0x24C], "little") + (sectors + 1) * 512
    length = int.from_bytes(image[0x24C:0x250], "little")
    if not length or offset + length > len(image):
        raise ImageError("the kernel's payload is cut short", "download the kernel package again")
    # The payload's last four bytes are its unpacked size, which the decompressors do not know.
    vmlinux = decompress(image[offset : offset + length - 4])
    if not vmlinux.startswith(_ELF):
        raise ImageError("the kernel's payload is no ELF file", "choose another kernel package")
    return vmlinux


def decompress(data: bytes) -> bytes:
    """Undo whichever compression the first bytes name; plain data comes back as it is."""
    kind = next((kind for magic, kind in _COMPRESSED.items() if data.startswith(magic)), "")
    if kind == "gzip":
        return gzip.decompress(data)
    if kind == "xz":
        return lzma.LZMADecompressor().decompress(data)
    if kind:
        try:
            done = subprocess.run([kind, "-dc"], input=data, capture_output=True, timeout=_DECOMPRESS_TIMEOUT_S)
        except FileNotFoundError:
            raise SoftwareMissingError(f"{kind} is not installed", f"apt-get install {kind}") from None
        if not done.stdout:
            raise ImageError(f"{kind} could not unpack the kernel", "download the kernel package again")
        return done.stdout
    return data


def module_depends(module: bytes) -> tuple[str, ...]:
    """Names of the modules that a module (unpacked .ko) needs."""
    found = _DEPENDS.search(module)
    if found is None or not found[1]:
        return ()
    return tuple(name.replace("-", "_") for name in found[1].decode("ascii").split(","))


def find_modules(folder: Path) -> dict[str, Path]:
    """All modules below a folder by name, with the kernel's spelling of dashes."""
    found = {}
    for path in sorted(folder.rglob("*.ko*")):
        if path.name.endswith((".ko", ".ko.xz", ".ko.zst", ".ko.gz")):
            found[path.name.split(".ko")[0].replace("-", "_")] = path
    return found


def load_order(wanted: Iterable[str], depends: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Modules with all they need, each after what it needs; names missing from `depends` are built in."""
    order: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in order or name not in depends:
            return
        if name in visiting:
            raise ImageError(f"module {name} needs itself", "choose another kernel package")
        visiting.add(name)
        for needed in depends[name]:
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order
