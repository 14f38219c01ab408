"""A cloud on one host of the laboratory for `scripts/bench control`: own broker, own prefix, the real clc, walrus and cc, and
lightweight nodes (educloud-sim nodes) or one real nc with the hypervisor that does nothing."""
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import time

from lab import wait_until

BROKER = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../scripts/lib/broker"))
PASSWORD = "correct horse battery"  # of this run's hosts only
API = "/clc/api/1.0"
TICKS = os.sysconf("SC_CLK_TCK")


def set_keys(path, keys):
    lines = [line for line in path.read_text().splitlines() if line.split("=")[0].strip() not in keys]
    path.write_text("\n".join([f"{key} = {value}" for key, value in keys.items()] + lines) + "\n")


def pids_with(text):
    """Machine-wide numbers of the processes whose command line holds `text`."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if text in file.read().replace(b"\0", b" ").decode(errors="replace"):
                    found.append(int(entry))
        except OSError:
            continue
    return found


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid, key="Pss"):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(rf"^{key}:\s+(\d+) kB", file.read(), re.M).group(1)) / 1024


class Site:
    """`nodes`: how many `educloud init` registers."""

    def __init__(self, lab, name, nodes, bin_dir, note):
        self.host, self.bin, self.note, self.registered = lab.host(name), pathlib.Path(bin_dir), note, nodes
        self.dir = pathlib.Path(self.host.dir) / "cloud"
        self.dir.mkdir(mode=0o711)
        self.dir.chmod(0o711)
        self.conf = self.dir / "config"
        self.syncs = self.dir / "syncs"
        self.syncs.mkdir()
        self.syncs.chmod(0o1777)
        self.daemons = {}
        # Where the broker's user can read it.
        self.preload = self.dir / "libbench_syncs.so"
        built = next(path for path in (self.bin / "libbench_syncs.so", *self.bin.parent.rglob("libbench_syncs.so")) if path.exists())
        shutil.copy(built, self.preload)
        self.preload.chmod(0o755)
        self._init()

    def _init(self):
        (self.dir / "password").write_text(PASSWORD)
        (self.dir / "password").chmod(0o600)
        words = [self.bin / "educloud", "init", "--host", self.host.name, "--cluster", "cc1", "--config-dir", self.conf,
                 "--state-dir", self.dir / "state", "--prefix", self.dir / "storage", "--in-place", "--hypervisor", "fake",
                 "--admin", "admin", "--admin-password-file", self.dir / "password", "--address",
                 f"{self.host.name}={self.host.address}"]
        words += ["--address", f"cc1={self.host.address}"]
        for number in range(1, self.registered + 1):
            words += ["--node", f"nc{number}"]
        self.host.run(words, timeout_s=300)
        for name in ("clc", "walrus", "cc"):
            set_keys(self.conf / f"{name}.conf", {"log_level": '"warn"'})
        path = self.conf / "clc.conf"
        # A machine that measures is busy: its load must not keep the desktops from their nodes.
        path.write_text(path.read_text() + "\n[placement]\nmax_cpu_usage = 100\nmin_disk_gib = 1\n")

    def start_broker(self):
        preload = f"LD_PRELOAD={self.preload} EDUCLOUD_SYNCS={self.syncs}/broker"
        begun = time.monotonic()
        words = [BROKER, "start", self.dir / "broker", "--bind",
                 self.host.address, "--port", "5672", "--mgmt-port", "15672", "--definitions", self.conf / "definitions.json"]
        self.host.run(words, env={"EDUCLOUD_BROKER_ENV": preload}, timeout_s=300)
        self.host.watch_log(str(self.dir / "broker/log"))
        self.note(f"    broker with {self.registered} nodes' queues: {time.monotonic() - begun:.1f} s")

    def stop_broker(self):
        self.host.run([BROKER, "stop", self.dir / "broker"], timeout_s=120)

    def broker_pid(self):
        return next(pid for pid in pids_with(f"-educloud_broker_dir {self.dir}/broker ") if "beam" in os.readlink(f"/proc/{pid}/exe"))

    def start(self, name, command):
        env = {"LD_PRELOAD": str(self.preload), "EDUCLOUD_SYNCS": f"{self.syncs}/{name}"}
        self.daemons[name] = self.host.start(command, name, env)
        return self.daemons[name]

    def start_daemons(self):
        for name in ("clc", "walrus", "cc"):
            self.start(name, [self.bin / f"educloud-{name}", "--config", self.conf / f"{name}.conf"])
        for name in ("clc", "walrus", "cc"):
            self.wait_healthy(name)
        self.token = self.log_in()

    def log_in(self):
        return json.loads(self.post("/login", {"user": "admin", "password": PASSWORD}))["token"]

    def start_nc(self):
        """One real node controller, of the first node."""
        config = self.conf / ("nc-nc1.conf" if self.registered > 1 else "nc.conf")
        set_keys(config, {"log_level": '"warn"', "min_free_disk_mib": 16})
        self.start("nc", [self.bin / "educloud-nc", "--config", config])

    def start_nodes(self, count, trace=None):
        """Lightweight nodes, all connected and known to clc."""
        ready = self.dir / "nodes-ready"
        ready.unlink(missing_ok=True)
        words = [self.bin / "educloud-sim", "nodes", "--config-dir", self.conf, "--count", count, "--ready-file", ready]
        if trace:
            words += ["--trace", trace]
        begun = time.monotonic()
        process = self.start("nodes", words)
        wait_until(lambda: ready.exists() or not process.alive, 600, f"{count} nodes to connect", [process.log])
        wait_until(lambda: self.get("/status")["nodes_alive"] >= count, 120, f"clc to know {count} nodes", [process.log])
        self.note(f"    {count} nodes: {time.monotonic() - begun:.1f} s")

    def stop(self, *names):
        for name in names or list(self.daemons)[::-1]:
            process = self.daemons.pop(name, None)
            if process:
                process.stop(deadline_s=60)

    def port(self, name):
        return {"clc": 8000, "walrus": 8001, "cc": 8002, "nc": 8003}[name]

    def answers(self, name):
        try:
            return self.host.http("GET", f"http://{self.host.address}:{self.port(name)}/health", timeout_s=3)[0] == 200
        except OSError:
            return False

    def wait_healthy(self, name, poll_s=0.05):
        wait_until(lambda: self.answers(name), 60, f"{name} to answer", [self.daemons[name].log], poll_s)

    @property
    def url(self):
        return f"http://{self.host.address}:8000"

    def get(self, path):
        status, body = self.host.http("GET", self.url + API + path, headers={"Authorization": f"Bearer {self.token}"})
        if status != 200:
            raise RuntimeError(f"{path}: {status} {body[:300]}")
        return json.loads(body)

    def post(self, path, body):
        status, answer = self.host.http("POST", self.url + API + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if status >= 300:
            raise RuntimeError(f"{path}: {status} {answer[:300]}")
        return answer

    def import_image(self):
        disk = self.dir / "disk.raw"
        disk.write_bytes(os.urandom(1 << 20) + bytes(7 << 20))
        environment = {"XDG_CONFIG_HOME": str(self.dir / "cli")}
        login = [self.bin / "educloud", "login", "--url", self.url, "--user", "admin", "--password-file", self.dir / "password"]
        self.host.run(login, env=environment)
        words = [self.bin / "educloud", "image", "import", disk, "--name", "bench", "--wait", "--json"]
        done = self.host.run(words, env=environment, timeout_s=120)
        return json.loads(done.stdout.strip().splitlines()[-1] if not done.stdout.lstrip().startswith("{\n") else done.stdout)["imgid"]

    def driver(self, *words, timeout_s=900):
        """The last line of a part of the load, as JSON."""
        done = self.host.run([self.bin / "bench_control", *words], env={"EDUCLOUD_BENCH_TOKEN": getattr(self, "token", "")}, timeout_s=timeout_s)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def lifecycles(self, imgid, count, clients, mode, trace=None):
        words = ["lifecycles", self.url, imgid, count, clients, mode] + ([trace] if trace else [])
        return self.driver(*[str(word) for word in words])

    def popen_lifecycles(self, imgid, count, clients):
        words = ["lifecycles", self.url, imgid, str(count), str(clients), "pipeline"]
        return self.host.popen([self.bin / "bench_control", *words], stdout=subprocess.DEVNULL, env={"EDUCLOUD_BENCH_TOKEN": self.token})

    def read(self, seconds, connections, targets):
        return self.driver("reads", self.url, str(seconds), str(connections), *targets)

    # -- what the processes used --------------------------------------------------------------------------------------

    def pids(self):
        found = {name: process.pid for name, process in self.daemons.items()}
        found["broker"] = self.broker_pid()
        return found

    def synced(self, name):
        """fsync and fdatasync calls so far of the processes started as `name`."""
        total = 0
        for path in self.syncs.glob(f"{name}.*"):
            data = path.read_bytes()
            if len(data) == 16:
                total += sum(struct.unpack("<QQ", data))
        return total

    def usage(self):
        """{name: (cpu seconds, syncs)} so far."""
        return {name: (cpu_s(pid), self.synced(name)) for name, pid in self.pids().items()}


class Held:
    """Desktops that run until `end`."""

    def __init__(self, site, imgid, count, clients):
        self.popen = site.host.popen([site.bin / "bench_control", "lifecycles", site.url, imgid, str(count), str(clients), "hold"],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"EDUCLOUD_BENCH_TOKEN": site.token})
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"the desktops did not start: exit code {self.popen.wait(timeout=60)}")
        self.started = json.loads(line)

    def end(self):
        self.popen.stdin.close()
        line = self.popen.stdout.readline()
        if self.popen.wait(timeout=900) != 0 or not line:
            raise RuntimeError("the desktops did not end")
        return json.loads(line)
