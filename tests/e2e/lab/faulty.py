"""A library preloaded into a daemon that makes its disk fail, its clock jump, or kills it at a chosen moment."""
import mmap
import os
import struct
import subprocess

_ORDERS = struct.Struct("<qIIII")
_COUNTS = struct.Struct("<QQQ")
_PATH_AT = _ORDERS.size + _COUNTS.size
_PATH_BYTES = 200


def build_library(folder):
    """Compiles faulty.c into `folder`; the path of the library."""
    path = os.path.join(folder, "faulty.so")
    source = os.path.join(os.path.dirname(os.path.realpath(__file__)), "faulty.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", path, source], check=True, timeout=60)
    return path


class Orders:
    """What befalls the processes started with `env`. Nothing at first, and after `nothing()`."""

    def __init__(self, library, path):
        self.env = {"LD_PRELOAD": library, "EDUCLOUD_FAULTS": path}
        with open(path, "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def nothing(self):
        self._set()

    def set_clock(self, seconds):
        """The time of day is `seconds` off."""
        self._set(clock_ms=int(seconds * 1000))

    def fail_writes(self, path, every=1):
        """Each `every`-th write or sync of a file whose path holds `path` ends with EIO."""
        self._set(every=every, path=path)

    def kill_at(self, further, after=False):
        """The process is killed at its sync or write to the broker that comes `further` after the present one."""
        self._set(point=self.points + further, after=int(after))

    def _set(self, clock_ms=0, every=0, point=0, after=0, path=""):
        text = path.encode()
        # First none: the fields are read one by one.
        self._memory[:_ORDERS.size] = _ORDERS.pack(0, 0, 0, 0, 0)
        self._memory[_PATH_AT:_PATH_AT + _PATH_BYTES] = text.ljust(_PATH_BYTES, b"\0")
        self._memory[:_ORDERS.size] = _ORDERS.pack(clock_ms, every, point, after, 0)

    def _counts(self):
        return _COUNTS.unpack_from(self._memory, _ORDERS.size)

    @property
    def failed(self):
        """Writes and syncs that failed so far."""
        return self._counts()[1]

    @property
    def points(self):
        """Syncs and writes to the broker so far."""
        return self._counts()[2]
