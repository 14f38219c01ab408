"""What was shown, flow by flow: each check takes its time, and all of them are one table at the end of a run."""
import contextlib
import time


class Checks:
    """`with checks("server run", "d: keeps a row over stop and start"): ...` is a row of the table."""

    def __init__(self):
        self._rows = []

    @contextlib.contextmanager
    def __call__(self, flow, check):
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self._rows.append((flow, check, "FAILED"))
            raise
        self._rows.append((flow, check, f"{time.monotonic() - began:6.1f} s"))

    def show(self):
        """scripts/test gathers the lines that begin with FLOW from all files."""
        for flow, check, found in self._rows:
            print(f"FLOW {flow:<22} {check:<66} {found}", flush=True)


class Timed:
    """For a TestCase whose tests are the checks of one flow, `flow`: each is a row with its time. `tell` adds what it measured."""

    flow = ""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.rows = []

    @classmethod
    def tearDownClass(cls):
        for check, found in cls.rows:
            print(f"FLOW {cls.flow:<22} {check:<66} {found}", flush=True)
        super().tearDownClass()

    def run(self, result=None):
        began, bad = time.monotonic(), len(result.failures) + len(result.errors)
        super().run(result)
        failed = len(result.failures) + len(result.errors) > bad
        self.tell(self._testMethodName[8:].replace("_", " "), "FAILED" if failed else f"{time.monotonic() - began:6.1f} s")
        return result

    def tell(self, check, found):
        self.rows.append((check, found))
