"""The cache of programs: a folder for each version, which is there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

Say = Callable[[str], None]


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where programs are kept, as the XDG base directory specification has it."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    # The specification: "If an implementation encounters a relative path [...] it should ignore it."
    root = base if base.is_absolute() else Path.home() / ".cache"
    return root / "fhirpath-otel" / "stack"


@contextmanager
def locked(file: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Holds the lock that `file` stands for; `busy` is called once if another process holds it.

    The lock ends with the process, however that ends.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def make_once(folder: Path, make: Callable[[Path], None], say: Say) -> Path:
    """`folder`, which `make` fills if it is not there yet: in a scratch folder, renamed when it is whole."""

    def busy() -> None:
        say(f"  somebody else is making {folder.name}; waiting for them")

    if folder.is_dir():
        return folder
    with locked(folder.parent / f".{folder.name}.lock", busy):
        if folder.is_dir():
            return folder
        # Whoever made these was killed: the lock is ours.
        for left_over in folder.parent.glob(f".{folder.name}.partial-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
        try:
            make(scratch)
            scratch.chmod(0o755)
            scratch.rename(folder)
        finally:
            with suppress(FileNotFoundError):
                shutil.rmtree(scratch)
    return folder
