"""The image, built by a real Apptainer once for each state of what goes into it.

What takes minutes to make is kept in COMIR_BATCH_CACHE, by default ~/.cache/comir-batch-tests.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("COMIR_BATCH_CACHE", Path.home() / ".cache" / "comir-batch-tests")).resolve()
DEFINITION = CHECKOUT / "containers" / "comir-batch.def"
LOCK = CHECKOUT / "constraints.txt"
PROJECT = CHECKOUT / "pyproject.toml"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
KEPT = 2  # images, and folders of wheels, which are large


def apptainer_command() -> Path:
    """Return a command `apptainer`: the host's, else that of Debian sid in a root file system of its own."""
    found = shutil.which("apptainer")
    if found:
        return Path(found)
    folder = CACHE / "apptainer"
    # Mirrors may be snapshots, whose lists of sid have expired.
    options = ["--aptopt=Acquire::Check-Valid-Until false", "--include=apptainer,squashfuse", "sid"]
    made_once(folder / "root", lambda path: debian(path, *options))
    map_all_ids()
    script = CHECKOUT / "tests" / "container" / "apptainer.sh"
    return made_once(folder / f"bin-{digest([script])}" / "apptainer", lambda path: shutil.copy2(script, path))


def build(apptainer: Path) -> Path:
    """Return the path of the image of this checkout, with the CPU build of torch; its own test is left to the tests."""
    sources = sorted(path for path in (CHECKOUT / "comir_batch").rglob("*") if path.is_file() and path.suffix != ".pyc")
    inputs = [DEFINITION, LOCK, PROJECT, CHECKOUT / "README.md", CHECKOUT / "LICENSE", *sources]

    def make(path: Path) -> None:
        arguments = {"bootstrap": "localimage", "base": base(), "pip_options": "--no-index --find-links /mnt"}
        words = [word for item in arguments.items() for word in ("--build-arg", "{}={}".format(*item))]
        # Apptainer's own choice of compression takes minutes more and makes the image no smaller.
        options = ["--notest", "--mksquashfs-args", "-comp zstd -Xcompression-level 3", "--bind", f"{wheels()}:/mnt"]
        call(apptainer, "build", *options, *words, path, DEFINITION)

    return made_once(CACHE / f"image-{digest(inputs)}.sif", make)


def base() -> Path:
    """Return the folder of a root file system with Python 3.11, for where no image registry is in reach."""

    def make(path: Path) -> None:
        debian(path, "--include=python3-venv", "bookworm")
        # Device files cannot be copied in a user namespace; Apptainer brings its own.
        for entry in (path / "dev").iterdir():
            remove(entry)

    return made_once(CACHE / "base", make)


def wheels() -> Path:
    """Return a folder of all wheels that the image installs, got by the host's pip as it is configured.

    The CPU build of torch comes from where pip looks anyway, else from PyTorch's own index.
    """
    torch = re.search(r"^torch==\S+", LOCK.read_text(), re.MULTILINE)[0] + "+cpu"
    builder = re.search(r'requires = \["(.+)"\]', PROJECT.read_text())[1]
    extras = re.search(r"'\.(\[.+?\])'", DEFINITION.read_text())[1]
    packages = [torch, builder, f"{CHECKOUT}{extras}"]

    def make(path: Path) -> None:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "-c", LOCK, "--wheel-dir", path]
        if subprocess.run([*pip, *packages], check=False).returncode != 0:
            call(*pip, "--extra-index-url", CPU_WHEELS, *packages)

    return made_once(CACHE / f"wheels-{digest([LOCK, PROJECT, DEFINITION])}", make)


def debian(path: Path, *arguments: str) -> None:
    """Make a root file system of Debian."""
    if not shutil.which("mmdebstrap") or not shutil.which("newuidmap") or os.geteuid() != 0:
        raise RuntimeError("container tests need root and the Debian packages mmdebstrap and uidmap")
    call("mmdebstrap", "--quiet", "--variant=minbase", *arguments, path)


def map_all_ids() -> None:
    """Let root map every id into its user namespaces."""
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        text = path.read_text()
        if not re.search("^root:0:", text, re.MULTILINE):
            path.write_text(text + "root:0:65536\n")


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return a file or folder that is there, or is made under another name and then given its own."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".making-{os.getpid()}-{target.name}")
        try:
            make(partial)
            partial.rename(target)
        finally:
            remove(partial)
        of_its_kind = target.parent.glob(f"{target.name.partition('-')[0]}-*")
        for old in sorted(of_its_kind, key=lambda path: path.stat().st_mtime)[:-KEPT]:
            remove(old)
    return target


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest(paths: Iterable[Path]) -> str:
    """Return a name for the content of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def call(*command: object) -> None:
    """Run a command in the checkout's root; its output shows if it fails."""
    words = list(map(str, command))
    done = subprocess.run(words, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{words} ended with {done.returncode}:\n{done.stdout[-5000:]}")
