"""What was shown, flow by flow: each check takes its time, and all of them are one table at the end of a run."""
import contextlib
import time


class Checks:
    """`with checks("server run", "d: keeps a row over stop and start"): ...` is a row of the table once it went well."""

    def __init__(self):
        self._rows = []

    @contextlib.contextmanager
    def __call__(self, flow, check):
        began = time.monotonic()
        yield
        self._rows.append((flow, check, time.monotonic() - began))

    def show(self):
        """scripts/test gathers the lines that begin with FLOW from all files."""
        for flow, check, seconds in self._rows:
            print(f"FLOW {flow:<22} {check:<66} {seconds:6.1f} s", flush=True)
