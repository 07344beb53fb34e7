"""Unpacks programs out of Debian's packages, without installing them and without being root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.stack.cache import Say, make_once
from tools.stack.failures import BuildFailed, ToolMissing, Unreachable

_DOWNLOADS = "https://prometheus.io/download/"


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A package, and a program in it by its path there."""

    package: str
    program: str

    def cached(self, cache: Path) -> Path | None:
        """The program out of the package that was unpacked last."""
        unpacked = [
            path for path in cache.glob(f"{self.package}-debian-*") if (path / self.program).is_file()
        ]
        return max(unpacked, key=lambda path: path.stat().st_mtime) / self.program if unpacked else None

    def get(self, cache: Path, say: Say) -> Path:
        """The program, whose package is downloaded and unpacked now if none has been before."""
        cached = self.cached(cache)
        if cached:
            return cached
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise ToolMissing(
                    f"{Path(self.program).name} is not on the PATH, and without {tool} it cannot be had from Debian's "
                    f"packages: get it from {_DOWNLOADS} or with your system's packages, and put it on the PATH."
                )
        _fill_lists(self.package, say)
        version = self._version()

        def make(folder: Path) -> None:
            say(f"{self.package} {version}: downloading Debian's package (a minute at most)")
            _run(["apt-get", "download", self.package], folder, self.package)
            for file in folder.glob("*.deb"):
                _run(["dpkg-deb", "-x", file.name, "."], folder, self.package)
                file.unlink()
            if not (folder / self.program).is_file():
                raise BuildFailed(f"Debian's package {self.package} {version} has no {self.program}.")
            # Debian has its scripts and styles in packages of their own.
            say(
                f"  unpacked; its API works, its pages only once it is installed (apt install {self.package})"
            )

        cache.mkdir(parents=True, exist_ok=True)
        return make_once(cache / f"{self.package}-debian-{version}", make, say) / self.program

    def _version(self) -> str:
        said = _run(["apt-get", "--print-uris", "download", self.package], Path.cwd(), self.package)
        found = re.search(r"^'[^']+' [^_\s]+_([^_\s]+)_[^_\s]+\.deb", said, re.MULTILINE)
        if not found:
            raise Unreachable(f"apt-get knows no package {self.package}:\n{said}")
        return found[1]


def _fill_lists(package: str, say: Say) -> None:
    """Has apt-get learn what packages there are, where it knows none: images of Debian come without lists."""
    existing = ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]
    if _run(existing, Path.cwd(), package).strip():
        return
    if os.geteuid() != 0:
        raise Unreachable(
            f"apt-get has no lists of packages, so that {package} cannot be had, and only root may get them: run "
            f"`apt-get update` as root, and try again; without Debian see {_DOWNLOADS}"
        )
    say("apt-get has no lists of packages: getting them (apt-get update)")
    _run(["apt-get", "update"], Path.cwd(), package)


def _run(command: list[str], folder: Path, package: str) -> str:
    """What the command said; raises Unreachable where it failed."""
    ended = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise Unreachable(
            f"{package} could not be had from Debian's packages ({' '.join(command[:2])}). If its lists are "
            f"old, run `apt-get update` as root; without Debian see {_DOWNLOADS}\n{ended.stdout.rstrip()}"
        )
    return ended.stdout
