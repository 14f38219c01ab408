"""A whole cloud on hosts of the laboratory: clc and walrus on `main`, cc1 (and more), nodes, each with its own directories."""
import base64
import os
import pathlib
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../scripts/lib"))

from cloud_cli import Cli, Guest  # noqa: E402  (scripts/lib is not a package)
from lab import Lab, injected, start_broker, start_libvirtd, wait_until  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("EDUCLOUD_BIN", ROOT / "build/release/bin"))
PASSWORD = "correct horse battery"


def set_keys(path, keys):
    """Sets top-level TOML keys of a config file; a value is written as it stands."""
    lines = [line for line in path.read_text().splitlines() if line.split("=")[0].strip() not in keys]
    path.write_text("\n".join([f"{key} = {value}" for key, value in keys.items()] + lines) + "\n")


def add_table(path, text):
    path.write_text(path.read_text() + "\n" + text + "\n")


class Cloud:
    """Context manager. `start(name)`, `daemons[name]` (Process), `cli`, `guest(insid)`."""

    def __init__(self, nodes=2, small_disks=None, min_disk_gib=1, placement=None, clusters=1):
        """`small_disks`: {daemon: size} puts that daemon's prefix on a tmpfs of e.g. "300m", inside its host.
        `placement`: more keys of clc.conf's [placement].
        `clusters`: the nodes are dealt out to them in turn; with two, nc1 and nc3 belong to cc1, nc2 to cc2."""
        self.lab = Lab()
        self.min_disk_gib, self.limited = min_disk_gib, set()
        self.placement = placement or {}
        self.small_disks = small_disks or {}
        self.cluster_names = [f"cc{i + 1}" for i in range(clusters)]
        self.node_names = [f"nc{i + 1}" for i in range(nodes)]
        self.daemons, self.libvirtd, self.hosts = {}, {}, {}
        self.env = {}  # of daemons, from their next start on

    def __enter__(self):
        self.lab.__enter__()
        try:
            self._deploy()
        except BaseException as problem:
            print(self.lab.report(), file=sys.stderr)
            self.lab.__exit__(None, None, None)
            raise problem
        return self

    def __exit__(self, kind, error, trace):
        for name in sorted(self.daemons, reverse=True):
            if self.daemons[name].alive:
                try:
                    self.daemons[name].stop(deadline_s=40)
                except Exception as problem:  # one that hangs must not keep the others and the hosts
                    print(problem, file=sys.stderr)
        self.lab.__exit__(kind, error, trace)

    def _deploy(self):
        for name in ["main", *self.cluster_names, *self.node_names]:
            self.hosts[name] = self.lab.host(name)
        self.main = self.hosts["main"]
        self.dir = pathlib.Path(self.lab.dir) / "cloud"
        self.dir.mkdir(mode=0o711)
        self.dir.chmod(0o711)
        self.conf = self.dir / "config"
        (self.dir / "password").write_text(PASSWORD)
        (self.dir / "password").chmod(0o600)
        words = [BIN / "educloud", "init", "--host", "main", "--config-dir", self.conf, "--state-dir",
                 self.dir / "state", "--prefix", self.dir / "storage", "--in-place", "--admin", "admin",
                 "--admin-password-file", self.dir / "password"]
        for name in self.cluster_names:
            words += ["--cluster", name]
        for number, name in enumerate(self.node_names):
            words += ["--node", f"{name}@{self.cluster_names[number % len(self.cluster_names)]}"]
        for name, host in self.hosts.items():
            words += ["--address", f"{name}={host.address}"]
        self.main.run(words)
        self.config_files = {"clc": self.conf / "clc.conf", "walrus": self.conf / "walrus.conf"}
        for name in self.cluster_names:
            self.config_files[name] = self.conf / (f"cc-{name}.conf" if len(self.cluster_names) > 1 else "cc.conf")
        add_table(self.config_files["clc"], "[placement]\nmax_cpu_usage = 100\nreserve_mib = 256\n"
                  f"min_disk_gib = {self.min_disk_gib}\n" + "\n".join(f"{k} = {v}" for k, v in self.placement.items()))
        set_keys(self.config_files["clc"], {"drain_warning_s": 10, "drain_idle_min": 0})
        for name in self.node_names:
            several = len(self.node_names) > 1
            self.config_files[name] = self.conf / (f"nc-{name}.conf" if several else "nc.conf")
            self.libvirtd[name] = start_libvirtd(self.hosts[name])
            set_keys(self.config_files[name], {"libvirt_uri": f'"{self.libvirtd[name].uri}"', "accel": '"auto"', "stop_grace_s": 30,
                                             "min_free_disk_mib": 16})
        for name, size in self.small_disks.items():
            self.storage(name).mkdir(parents=True, exist_ok=True)
            self.host_of(name).run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", self.storage(name)])
        self.start_sftp()
        self.broker = start_broker(self.main, definitions=str(self.conf / "definitions.json"))
        self.cli = Cli(self._run_cli)
        for name in self.config_files:
            self.start(name)
        for name in self.config_files:
            self.wait_healthy(name)
        self.login()
        for name in self.node_names:
            self.wait_node(name, "up")

    def start_sftp(self):
        """Starts (again) the sshd of the shared folders. It trusts no path below the world's /tmp, so the folders get another."""
        config = self.conf / "sftp/sshd_config"
        space, seen_as = self.storage("walrus") / "space", "/run/space"
        if self.main.run(["mountpoint", "-q", seen_as], check=False).returncode != 0:
            self.main.run(["mkdir", "-p", space, seen_as, "/run/sshd"])
            self.main.run(["mount", "--bind", space, seen_as])
        text = re.sub(r"^ChrootDirectory .*$", f"ChrootDirectory {seen_as}", config.read_text(), flags=re.M)
        config.write_text(text.replace("StrictModes yes", "StrictModes no"))
        self.sftp = self.main.start(["/usr/sbin/sshd", "-D", "-e", "-f", config], "sftp")

    def stop_sftp(self):
        """kill -9 of the sshd, and of what serves those who are connected."""
        sessions = self.main.run(["ps", "-e", "-o", "pid=,args="]).stdout.splitlines()
        self.sftp.kill()
        pids = [line.split()[0] for line in sessions if "sshd: " in line]
        self.main.run(["kill", "-9", *pids], check=False)

    def login(self):
        self.cli("login", "--url", f"http://{self.main.address}:8000", "--user", "admin", "--password-file", self.dir / "password")

    def _run_cli(self, words, timeout_s):
        done = self.main.run([BIN / "educloud", *words], env={"XDG_CONFIG_HOME": str(self.dir / "cli")}, timeout_s=timeout_s, check=False)
        return done.returncode, done.stdout, done.stderr

    def host_of(self, name):
        return self.main if name in ("clc", "walrus") else self.hosts[name]

    def start(self, name):
        """Starts (again) the daemon of `name`: clc, walrus, cc1, nc1, ..."""
        role = re.sub(r"\d+$", "", name)
        self.daemons[name] = self.host_of(name).start([BIN / f"educloud-{role}", "--config", self.config_files[name]], name,
                                                      self.env.get(name))
        return self.daemons[name]

    def wait_healthy(self, name, deadline_s=60):
        port = {"clc": 8000, "walrus": 8001, "cc": 8002, "nc": 8003}[re.sub(r"\d+$", "", name)]
        host = self.host_of(name)

        def answers():
            try:
                return host.http("GET", f"http://{host.address}:{port}/health")[0] == 200
            except OSError:
                return False
        wait_until(answers, deadline_s, f"{name} to answer", [self.daemons[name].log])

    def restart(self, name):
        """kill -9, then start again."""
        self.daemons[name].kill()
        self.start(name)
        self.wait_healthy(name)

    def reboot(self, name):
        """The host of a node or cc: everything on it ends at once; what a boot starts is started again."""
        host = self.hosts[name]
        host.reboot()
        injected("host-rebooted")
        self.daemons[name].wait(10)
        if name in self.libvirtd:
            self.libvirtd[name].start_after_reboot()
        self.start(name)
        self.wait_healthy(name)

    def wait_node(self, name, state, deadline_s=90):
        wait_until(lambda: self.cli("node", "show", name)["state"] == state, deadline_s, f"node {name} to be {state}",
                   [self.daemons[name].log])

    def publish(self, messages):
        """(exchange, key, body) of each, by rabbitmqctl, past all rights: what a defect in a daemon of ours could do."""
        properties = "rabbit_framing_amqp_0_9_1:decode_properties(60, <<0,0>>)"
        calls = [f'rabbit_basic:publish({{resource, <<"/">>, exchange, <<"{exchange}">>}}, <<"{key}">>, {properties}, '
                 f'base64:decode(<<"{base64.b64encode(body.encode()).decode()}">>))' for exchange, key, body in messages]
        # A command line is bounded: a few at a time.
        for at in range(0, len(calls), 5):
            self.broker.ctl("eval", ", ".join(calls[at:at + 5]) + ".")

    def limit_rate(self, name, rate):
        """Everything sent to host `name` passes at `rate` ("20mbit"); None lifts it."""
        host = self.hosts[name]
        if rate is not None:
            self.limited.add(name)
            host.on_switch(["tc", "qdisc", "replace", "dev", host.port, "root", "tbf", "rate", rate, "burst", "64kb", "latency", "400ms"])
        elif name in self.limited:
            self.limited.remove(name)
            host.on_switch(["tc", "qdisc", "del", "dev", host.port, "root"])

    def storage(self, name):
        """The prefix of a daemon."""
        text = self.config_files[name].read_text()
        return pathlib.Path(re.search(r'^prefix = "(.*)"$', text, re.M).group(1))

    def get(self, url):
        """Body of a page, fetched from cc1: another host than the guest's."""
        status, body = self.hosts["cc1"].http("GET", url)
        if status != 200:
            raise OSError(f"{url}: {status}")
        return body.decode()

    def guest(self, insid, deadline_s=150):
        # clc knows its node's address from the next heartbeat on, when it has just been started.
        url = wait_until(lambda: self.cli("vm", "show", insid)["web_url"], 60, f"the address of {insid}")
        return Guest(url, self.get).wait_ready(deadline_s)

    def task(self, tid):
        return self.cli("task", "show", tid)

    def wait_task(self, tid, states, deadline_s=180):
        """The task once it is in one of `states` ("phase/state"); fails at once when it has failed."""
        def reached():
            task = self.task(tid)
            if task["failed"] and "failed" not in states:
                raise AssertionError(f"{tid} failed: {task['errormsg']}")
            return task if f"{task['phase']}/{task['state']}" in states or (task["failed"] and "failed" in states) else None
        return wait_until(reached, deadline_s, f"{tid} to be in {states}", [p.log for p in self.daemons.values()])
