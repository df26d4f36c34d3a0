"""What macOS and Windows lack is taken from a process on Linux; Python imports this file first.

`SIMULATED=macos`: no `sched_getaffinity`, no `/proc`. `SIMULATED=windows`: no `fcntl`, `resource`,
signal masks and directory descriptors either; a file that is open or mapped can be neither renamed
nor removed; text has no default encoding. Without the variable nothing happens.
"""
# ruff: noqa: PTH115, PTH123, PTH208, PTH112

import os
import sys
import warnings
from typing import Any

ON_LINUX = ("sched_getaffinity",)
ON_UNIX = ("O_DIRECTORY", "O_NOFOLLOW", "preadv", "pread", "EX_UNAVAILABLE", "EX_IOERR", "statvfs")
SIGNALS = ("pthread_sigmask", "SIGXCPU", "SIGALRM", "alarm", "setitimer")
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")
KIND = os.environ.get("SIMULATED", "")
stat = os.stat


class Busy:
    """Names that this process has open or mapped."""

    is_looking = False

    def find(self) -> set[str]:
        self.is_looking = True
        try:
            names = {os.readlink(f"/proc/self/fd/{fd}") for fd in self._descriptors()}
            with open("/proc/self/maps", encoding="utf-8") as file:
                return names | {line.rstrip().rpartition(" ")[2] for line in file if " /" in line}
        finally:
            self.is_looking = False

    def _descriptors(self) -> list[str]:
        names = [name for name in os.listdir("/proc/self/fd") if int(name) > 2]
        return [name for name in names if os.path.lexists(f"/proc/self/fd/{name}")]


BUSY = Busy()


def is_of_psutil(depth: int) -> bool:
    """Return whether the caller is psutil, which has other ways on other systems."""
    frame = sys._getframe(depth)
    return any("psutil" in one.f_code.co_filename for one in (frame, frame.f_back) if one)


def is_proc(path: object) -> bool:
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith("/proc/")


def stat_here(path: Any, **options: Any) -> os.stat_result:
    if is_proc(path) and not BUSY.is_looking and not is_of_psutil(2):
        raise FileNotFoundError(2, os.strerror(2), path)
    return stat(path, **options)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: raise what the other system would."""
    if BUSY.is_looking:
        return
    if event == "open" and is_proc(arguments[0]) and not is_of_psutil(2):
        raise FileNotFoundError(2, os.strerror(2), arguments[0])
    if KIND != "windows":
        return
    if event == "open" and not isinstance(arguments[0], int) and os.path.isdir(arguments[0]):
        raise PermissionError(13, os.strerror(13), arguments[0])
    if event in ("os.rename", "os.remove"):
        require_closed([os.fspath(one) for one in arguments if isinstance(one, str | os.PathLike)])


def require_closed(paths: list[str]) -> None:
    busy = BUSY.find()
    for path in map(os.path.realpath, paths):
        if any(one == path or one.startswith(f"{path}/") for one in busy):
            raise PermissionError(13, "is used by this process", path)


def simulate() -> None:
    names = ON_LINUX if KIND == "macos" else ON_LINUX + ON_UNIX
    for name in names:
        delattr(os, name)
    if sys.version_info >= (3, 13):
        os.process_cpu_count = os.cpu_count  # as Python itself does where no affinity is known
    os.stat = stat_here
    if KIND == "windows":
        import signal

        os.supports_dir_fd = set()  # shutil would open directories
        import psutil  # noqa: F401 - on Linux it needs `resource`

        for name in SIGNALS:
            delattr(signal, name)
        sys.modules |= dict.fromkeys(MODULES)
        warnings.filterwarnings("error", category=EncodingWarning, module=r"(prefdata|dpo)\.")
    sys.addaudithook(refuse)


if KIND:
    simulate()
