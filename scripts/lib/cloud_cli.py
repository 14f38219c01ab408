"""The command `educloud` for scripts and end-to-end tests: runs it with --json and waits for what it promised."""
import json
import subprocess
import time
import urllib.request


class CommandError(Exception):
    """`educloud` ended with another code than 0."""

    def __init__(self, words, code, output):
        super().__init__(f"educloud {' '.join(words)}: exit {code}: {output.strip()[-2000:]}")
        self.code = code
        self.output = output


class Cli:
    """`run(words, timeout_s)` executes the program and returns (exit code, stdout, stderr)."""

    def __init__(self, run):
        self._run = run

    @classmethod
    def local(cls, program):
        def run(words, timeout_s):
            done = subprocess.run([program, *words], capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
            return done.returncode, done.stdout, done.stderr
        return cls(run)

    def __call__(self, *words, timeout_s=600):
        """Last JSON document that the command printed."""
        words = [str(word) for word in words]
        code, out, err = self._run([*words, "--json"], timeout_s)
        if code != 0:
            raise CommandError(words, code, out + err)
        try:
            return json.loads(out)
        except json.JSONDecodeError:
            lines = [line for line in out.splitlines() if line.strip()]
            return json.loads(lines[-1]) if lines else None

    def raw(self, *words, timeout_s=120):
        words = [str(word) for word in words]
        code, out, err = self._run(words, timeout_s)
        if code != 0:
            raise CommandError(words, code, out + err)
        return out

    def import_image(self, file, name):
        return self("image", "import", file, "--name", name, "--wait")["imgid"]

    def define(self, imgid, name, memory_mib=160):
        return self("vm", "define", "--image", imgid, "--name", name, "--type", "vdsmall", "--memory-mib", memory_mib)["insid"]

    def run(self, insid, timeout_s=300):
        self("vm", "run", insid, "--wait", "--timeout", timeout_s, timeout_s=timeout_s + 30)
        return self("vm", "show", insid)

    def stop(self, insid, timeout_s=180):
        self("vm", "stop", insid, "--wait", "--timeout", timeout_s, timeout_s=timeout_s + 30)

    def submit(self, tid, timeout_s=600):
        self("image", "submit", tid, "--wait", "--timeout", timeout_s, timeout_s=timeout_s + 30)

    def current_version(self, imgid):
        return next(v["version"] for v in self("image", "versions", imgid)["items"] if v["current"])

    def versions(self, imgid):
        return sorted(v["version"] for v in self("image", "versions", imgid)["items"])


def wait_until(predicate, deadline_s, what):
    """The first true value of `predicate`, asked five times a second. Its exceptions count as not yet."""
    deadline = time.monotonic() + deadline_s
    last = None
    while time.monotonic() < deadline:
        try:
            value = predicate()
            if value:
                return value
        except Exception as problem:  # the thing waited for may not even listen yet
            last = problem
        time.sleep(0.2)
    raise TimeoutError(f"waited {deadline_s} s for {what}" + (f"; last: {last}" if last else ""))


def local_get(url, timeout_s=5):
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return answer.read().decode()


class Guest:
    """The sample image's web pages. `get(url)` fetches one from wherever the test sits."""

    def __init__(self, web_url, get=local_get):
        self.url = web_url.rstrip("/")
        self.get = get

    def wait_ready(self, deadline_s=120):
        wait_until(lambda: "eduCloud sample guest" in self.get(self.url + "/"), deadline_s, f"the guest at {self.url}")
        return self

    def add_note(self, text):
        self.get(f"{self.url}/cgi-bin/note?text={text}")

    def notes(self):
        return self.get(f"{self.url}/cgi-bin/note")

    def disks(self):
        """A line per drive but c: "letter kind size_kib [device]"; kind is device, virtiofs or smb."""
        return self.get(f"{self.url}/cgi-bin/disks")

    def files(self, drive):
        return self.get(f"{self.url}/cgi-bin/disk?name={drive}")

    def read(self, drive, file):
        return self.get(f"{self.url}/cgi-bin/disk?name={drive}&file={file}").strip()

    def write(self, drive, file, text):
        """Returns when it is on the disk, which on a busy host may take longer than a page: then it is asked for again."""
        deadline = time.monotonic() + 90
        while True:
            try:
                self.get(f"{self.url}/cgi-bin/disk-write?name={drive}&file={file}&text={text}")
                return
            except OSError as problem:
                slow = isinstance(problem, TimeoutError) or isinstance(getattr(problem, "reason", None), TimeoutError)
                if not slow or time.monotonic() > deadline:
                    raise
