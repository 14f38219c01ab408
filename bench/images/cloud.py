"""Our side of the race: the classes of walrus, cc and nc in processes of their own on hosts of the laboratory, without broker,
database and hypervisor (bench/images/driver.cpp)."""
import json
import os
import shutil
import subprocess

from data import data_bytes
from others import wait_port

IMAGE = "IMG0000be4c"
KEY = "b5" * 32  # of this run's hosts only; nothing outside the laboratory's namespaces sees it


class Part:
    """A running walrus, cc or nc. Lines of JSON that it prints are its news; the last one is what it used."""

    def __init__(self, host, name, driver, words):
        self.host, self.name = host, name
        self.popen = host.popen([driver, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                env={"EDUCLOUD_BENCH_KEY": KEY})

    def news(self):
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.popen.wait(timeout=30)}")
        return json.loads(line)

    def stop(self):
        """Closes its input, which ends it. Returns {cpu_s, rss_mib, sent_bytes}."""
        self.popen.stdin.close()
        used = None
        for line in self.popen.stdout:
            used = json.loads(line)
        if self.popen.wait(timeout=60) != 0 or used is None:
            raise RuntimeError(f"{self.name} ended badly")
        return used

    def kill(self):
        self.popen.kill()
        self.popen.wait(timeout=30)


class Cloud:
    def __init__(self, driver, folder, usage):
        self.driver, self.folder, self.usage = driver, folder, usage
        self.parts = []

    def place(self, host):
        path = os.path.join(self.folder, host.name)
        os.makedirs(path, exist_ok=True)
        return path

    def run(self, host, *words):
        """A part that ends by itself; its last line."""
        done = host.run([self.driver, *words], env={"EDUCLOUD_BENCH_KEY": KEY}, timeout_s=3600)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def publish(self, walrus, version, file):
        """Imports a raw file at walrus (which must not be serving); {digest, data_bytes, stored_bytes, seconds, ...}."""
        return self.run(walrus, "import", self.place(walrus), IMAGE, str(version), file)

    def serve_walrus(self, host):
        return self._serve(host, "walrus", host.name, ["walrus", self.place(host), host.address, "8001"], 8001)

    def serve_cc(self, host, walrus, nodes=(), peers=True):
        known = [f"{node.name}={node.address}" for node in nodes]
        return self._serve(host, "cc", host.name, ["cc", self.place(host), host.address, "8002", f"http://{walrus.address}:8001",
                                                   "peers" if peers else "alone", *known], 8002)

    def _serve(self, host, role, name, words, port):
        part = Part(host, role, self.driver, words)
        self.parts.append(part)
        wait_port(host, host.address, port)
        return part

    def node(self, host, upstream, port, version, digest, peers=False):
        """Starts a fill; its news says when it has ended."""
        part = Part(host, "nc", self.driver, ["fill", self.place(host), host.name, host.address, f"http://{upstream.address}:{port}",
                                              IMAGE, str(version), digest, "peers" if peers else "alone"])
        self.parts.append(part)
        return part

    def submit(self, host, upstream, port, version, base_version, overlay):
        return self.run(host, "submit", self.place(host), host.name, f"http://{upstream.address}:{port}", IMAGE, str(version),
                        str(base_version), overlay)

    def machine(self, host, version):
        return os.path.join(self.place(host), f"images/{IMAGE}/versions/{version}/machine")

    def stop(self):
        """Stops what runs and remembers what each used."""
        for part in self.parts:
            if part.popen.poll() is None:
                used = part.stop()
                self.usage.setdefault(part.name, []).append(used)
        self.parts = []

    def forget(self, host):
        """An empty cache on that host."""
        shutil.rmtree(self.place(host), ignore_errors=True)

    def disk_use(self, host):
        done = subprocess.run(["du", "-s", "--block-size=1", self.place(host)], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0])


__all__ = ["Cloud", "IMAGE", "Part", "data_bytes"]
