"""Hosts on a switch, and processes on them."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

from .namespaces import Namespaces
from .waiting import CommandFailed, LabError, tail, wait_until

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))


class Process:
    """A process on a host. `pid` is its number on the machine; `log` holds what it writes."""

    def __init__(self, name, popen, log):
        self.name, self.log = name, log
        self._popen = popen

    @property
    def pid(self):
        return self._popen.pid

    @property
    def alive(self):
        return self._popen.poll() is None

    @property
    def returncode(self):
        return self._popen.poll()

    def wait(self, deadline_s=30):
        """Its exit code, once it has ended; LabTimeout with its log if it does not."""
        wait_until(lambda: not self.alive, deadline_s, f"end of {self.name}", [self.log], poll_s=0.02)
        return self._popen.returncode

    def stop(self, deadline_s=30):
        """SIGTERM, then waits; returns the exit code. It is killed, and LabTimeout raised, if it does not end."""
        if self.alive:
            self._popen.terminate()
        try:
            return self.wait(deadline_s)
        finally:
            if self.alive:
                self.kill()

    def kill(self):
        """kill -9: what a power cut leaves of it."""
        self._popen.kill()
        return self._popen.wait(timeout=30)

    def pause(self):
        """A stalled process: it keeps its connections and answers nothing."""
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self):
        self._popen.send_signal(signal.SIGCONT)


class Host:
    """One host: own network card eth0 (`address`), process tree, host name, and directory (`dir`, also its /mnt)."""

    def __init__(self, lab, name, address, number):
        self.lab, self.name, self.address = lab, name, address
        self.dir = os.path.join(lab.dir, name)
        os.mkdir(self.dir, 0o711)
        os.chmod(self.dir, 0o711)
        os.mkdir(os.path.join(self.dir, "logs"))
        self.logs = []
        self.namespaces = Namespaces(name, lab.hosts_file, self.dir)
        self._number = number
        self._libvirt_cgroups = set()

    def attach(self, switch):
        """Plugs eth0 into the switch; its MAC is fixed by the host's number."""
        port, peer = f"p-{self.name}"[:15], self.namespaces.pid
        mac = f"02:ec:4d:77:{self._number >> 8:02x}:{self._number & 255:02x}"
        subprocess.run(["ip", "link", "add", "eth0", "netns", str(peer), "address", mac, "type", "veth", "peer", "name",
                        port, "netns", str(switch.pid)], check=True)
        self.port, self._switch = port, switch
        subprocess.run(switch.enter("net") + ["ip", "link", "set", port, "master", "br0", "up"], check=True)
        self.run(["ip", "addr", "add", f"{self.address}/16", "dev", "eth0"])
        self.run(["ip", "link", "set", "eth0", "up"])

    def popen(self, command, env=None, **options):
        """subprocess.Popen of `command` (a list) inside this host. `env` is added to a small clean environment."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": self.dir}
        for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS", "XDG_CACHE_HOME"):
            if name in os.environ:
                environment[name] = os.environ[name]
        environment.update(env or {})
        words = self.namespaces.enter("net", "mount", "uts")
        words[1:1] = [f"--wdns={options.pop('cwd', self.dir)}"]
        return self.namespaces.spawn(words + [str(word) for word in command], env=environment, **options)

    def start(self, command, name, env=None):
        """Starts a server as a Process named `name`; its output goes to <dir>/logs/<name>.log (appended)."""
        log = os.path.join(self.dir, "logs", f"{name}.log")
        with open(log, "ab") as out:
            process = Process(f"{name} on {self.name}", self.popen(command, env, stdin=subprocess.DEVNULL, stdout=out,
                                                                   stderr=out), log)
        self.watch_log(log)
        return process

    def watch_log(self, path):
        """Makes the tail of `path` part of the report when a test fails."""
        if path not in self.logs:
            self.logs.append(path)

    def run(self, command, env=None, timeout_s=60, check=True, data=None):
        """Runs a command to its end; CompletedProcess with text output. CommandFailed if it fails and `check`."""
        # Files, not pipes: a daemon that the command leaves behind would keep a pipe open for ever.
        with (tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+", errors="replace") as out,
              tempfile.TemporaryFile("w+", errors="replace") as err):
            given.write(data or "")
            given.seek(0)
            popen = self.popen(command, env, stdin=given, stdout=out, stderr=err)
            try:
                popen.wait(timeout=timeout_s)
                trouble = f"exit code {popen.returncode}" if check and popen.returncode != 0 else None
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait(timeout=30)
                trouble = f"no end after {timeout_s} s"
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(command, popen.returncode, out.read(), err.read())
        if trouble:
            words = " ".join(str(word) for word in command)
            raise CommandFailed(f"{self.name}: {words}: {trouble}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done

    def http(self, method, url, data=None, headers=None, timeout_s=10):
        """(status, body bytes) of a request made from this host. OSError if there is no HTTP answer."""
        def ask():
            request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with opener.open(request, timeout=timeout_s) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()
        return self.namespaces.in_thread(ask, net=True)

    def inside(self, function):
        """The result of `function()`, called in a thread whose sockets are this host's."""
        return self.namespaces.in_thread(function, net=True)

    def on_switch(self, command):
        """Runs a command where the other end of our cable is (`port`): rates, losses, captures. Returns its output."""
        done = subprocess.run(self._switch.enter("net") + [str(word) for word in command], capture_output=True, text=True,
                              timeout=60, check=False)
        if done.returncode != 0:
            raise CommandFailed(f"switch: {command}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def link_down(self):
        """Pulls the network cable, at the switch's side."""
        self.on_switch(["ip", "link", "set", self.port, "down"])

    def link_up(self):
        self.on_switch(["ip", "link", "set", self.port, "up"])

    def note_cgroups(self):
        """Remembers libvirt's cgroups of the guests that run now, to remove them after."""
        mine = os.readlink(f"/proc/{self.namespaces.pid}/ns/pid")
        for entry in os.listdir("/proc"):
            try:
                if not entry.isdigit() or os.readlink(f"/proc/{entry}/ns/pid") != mine:
                    continue
                with open(f"/proc/{entry}/cgroup", encoding="utf-8") as file:
                    for line in file:
                        _, controllers, path = line.rstrip("\n").split(":", 2)
                        found = re.match(r"(/machine(?:\.slice)?/[^/]+\.libvirt-(?:qemu|lxc)|/machine\.slice/machine-[^/]+)",
                                         path)
                        if found and controllers:
                            folder = controllers.removeprefix("name=")
                            self._libvirt_cgroups.add(f"/sys/fs/cgroup/{folder}{found.group()}")
            except OSError:
                continue

    def reboot(self):
        """Ends every process at once and boots anew: /run is empty, mounts and addresses are those of a new host, the
        directory and the network card are the old ones. Nothing is started."""
        self.power_off()
        try:
            self.on_switch(["ip", "link", "del", self.port])
        except CommandFailed:
            pass  # the cable went with the card
        self.namespaces = Namespaces(self.name, self.lab.hosts_file, self.dir)
        self.attach(self._switch)

    def power_off(self):
        """Ends every process of the host at once, as a power cut does. Only `reboot` makes it usable again."""
        self.note_cgroups()
        self.namespaces.close()
        for top in self._libvirt_cgroups:
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:  # another run's guest of the same name still uses it
                    continue


class Lab:
    """A switch and hosts 10.77.0.11, .12, ... on it. Use as a context manager."""

    def __init__(self):
        if os.geteuid() != 0:
            raise LabError("the laboratory makes namespaces: run it as root")
        self.keep = os.environ.get("EDUCLOUD_KEEP") == "1"
        self.hosts = {}
        # Short: a UNIX socket's path has at most 107 bytes. Passable: RabbitMQ runs as its own user.
        self.dir = tempfile.mkdtemp(prefix="eclab-", dir="/tmp")
        os.chmod(self.dir, 0o711)
        self.hosts_file = os.path.join(self.dir, "hosts")
        with open(self.hosts_file, "w", encoding="ascii") as file:
            file.write("127.0.0.1 localhost\n::1 localhost\n")
        os.chmod(self.hosts_file, 0o644)
        os.mkdir(os.path.join(self.dir, "switch"))
        self._switch = None

    def __enter__(self):
        # A terminated test run cleans up too; a killed one leaves its directory only.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            self._switch = Namespaces("switch", self.hosts_file, os.path.join(self.dir, "switch"))
            enter = self._switch.enter("net")
            subprocess.run(enter + ["ip", "link", "add", "br0", "type", "bridge"], check=True)
            subprocess.run(enter + ["ip", "link", "set", "br0", "up"], check=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            print(self.report(), file=sys.stderr)
        self.close()

    def host(self, name):
        """A new host; its name is known to all hosts by /etc/hosts."""
        if not re.fullmatch(r"[a-z0-9-]{1,13}", name) or name in self.hosts or name == "switch":
            raise LabError(f"host name {name!r}: 1 to 13 of a-z 0-9 -, each once, not 'switch'")
        number = len(self.hosts) + 11
        host = Host(self, name, f"10.77.{number >> 8}.{number & 255}", number)
        self.hosts[name] = host
        host.attach(self._switch)
        with open(self.hosts_file, "a", encoding="ascii") as file:
            file.write(f"{host.address} {name}\n")
        return host

    def sample_image(self, tag="sample"):
        """Path of a freshly built sample guest image (scripts/build-sample-image), or $EDUCLOUD_SAMPLE_IMAGE."""
        given = os.environ.get("EDUCLOUD_SAMPLE_IMAGE")
        if given and tag == "sample":
            return given
        path = os.path.join(self.dir, f"{tag}.qcow2")
        if not os.path.exists(path):
            done = subprocess.run([os.path.join(REPOSITORY, "scripts/build-sample-image"), "--out", path, "--tag", tag],
                                  capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                raise CommandFailed(done.stderr)
        return path

    def report(self):
        """The ends of all logs of all hosts."""
        return "\n".join(tail(log) for host in self.hosts.values() for log in host.logs)

    def close(self):
        """Ends everything and removes the directory, unless EDUCLOUD_KEEP=1. Goes on after errors, raises the first."""
        errors = []
        for host in self.hosts.values():
            try:
                host.power_off()
            except (LabError, OSError, subprocess.SubprocessError) as error:
                errors.append(error)
        if self._switch is not None:
            self._switch.close()
        if self.keep:
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        if errors:
            raise errors[0]
