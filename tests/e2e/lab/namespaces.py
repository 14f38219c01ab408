"""The little of Linux namespaces that the hosts need: one first process per host, and entering its namespaces."""
import ctypes
import os
import signal
import subprocess
import threading
import uuid

from .waiting import LabError, wait_until

CLONE_NEWNET, CLONE_NEWPID = 0x40000000, 0x20000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

# The first process of a host: prepares the mounts, then only reaps orphans (libvirt waits until a killed QEMU is
# really gone). /sys anew, or /sys/class/net would show the machine's cards; the cgroups come back by bind, without
# the `unified` one, which libvirt 9 would prefer although it has no controllers in a hybrid layout. /run is empty:
# no D-Bus, systemd or other libvirt of the machine can be reached by accident. Each start is a boot of its own.
_FIRST_PROCESS = r"""
import os, signal, socket, subprocess, sys
name, hosts_file, directory = sys.argv[1:]
def mount(*words):
    subprocess.run(("mount",) + words, check=True)
socket.sethostname(name)
mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
os.makedirs("/run/lock")
os.mkdir("/run/cgroup")
mount("--rbind", "/sys/fs/cgroup", "/run/cgroup")
mount("-t", "sysfs", "sysfs", "/sys")
mount("--rbind", "/run/cgroup", "/sys/fs/cgroup")
subprocess.run(("umount", "-R", "/run/cgroup"), check=True)
if os.path.ismount("/sys/fs/cgroup/unified"):
    subprocess.run(("umount", "/sys/fs/cgroup/unified"), check=True)
mount("--bind", hosts_file, "/etc/hosts")
mount("--bind", directory, "/mnt")
mount("--bind", directory + "/boot_id", "/proc/sys/kernel/random/boot_id")
subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _child_of(pid):
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == pid:
                        return int(entry)
            except OSError:
                continue
    return None


class Namespaces:
    """Own network, mount, host name and process namespaces; everything in them ends with `close`."""

    def __init__(self, name, hosts_file, directory):
        words = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
                 "--propagation", "private", "/usr/bin/python3", "-c", _FIRST_PROCESS, name, hosts_file, directory]
        self._log = os.path.join(directory, "namespace.log")
        self._children = []
        with open(os.path.join(directory, "boot_id"), "w", encoding="ascii") as file:
            file.write(f"{uuid.uuid4()}\n")
        with open(self._log, "wb") as log:
            self._unshare = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             preexec_fn=_die_with_parent)
        try:
            wait_until(self._is_ready, 20, f"namespaces of host {name}", [self._log], poll_s=0.02)
            self.pid = wait_until(lambda: _child_of(self._unshare.pid), 5, f"first process of host {name}")
        except LabError:
            self.close()
            raise

    def _is_ready(self):
        if self._unshare.poll() is not None:
            raise LabError(f"unshare ended with {self._unshare.returncode}")
        with open(self._log, encoding="utf-8") as log:
            return "ready\n" in log.read()

    def enter(self, *kinds):
        """The words of a command line that enter namespaces (net, mount, uts) and then run what follows."""
        return ["nsenter", "-t", str(self.pid)] + [f"--{kind}" for kind in kinds] + ["--"]

    def in_thread(self, function, *, net=False, processes=False):
        """Runs `function` in a thread of its own that is in our network namespace, or whose children are ours."""
        outcome = {}

        def body():
            try:
                for wanted, name, kind in ((net, "net", CLONE_NEWNET), (processes, "pid", CLONE_NEWPID)):
                    if wanted:
                        with open(f"/proc/{self.pid}/ns/{name}", "rb") as namespace:
                            if _libc.setns(namespace.fileno(), kind) != 0:
                                raise OSError(ctypes.get_errno(), f"setns {name}")
                outcome["value"] = function()
            except BaseException as error:  # handed to the caller's thread below
                outcome["error"] = error

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    def spawn(self, words, **options):
        """subprocess.Popen of a command line made with `enter`, as a member of our process namespace."""
        popen = self.in_thread(lambda: subprocess.Popen(words, **options), processes=True)
        self._children = [one for one in self._children if one.poll() is None] + [popen]
        return popen

    def close(self):
        """Kills the first process; the kernel kills the rest before its end is reported."""
        if self._unshare.poll() is None:
            self._unshare.kill()
        self._unshare.wait(timeout=30)
        pid = getattr(self, "pid", None)
        if pid:
            # The kernel also waits until we have collected the processes whose parent we are.
            wait_until(lambda: all(one.poll() is not None for one in self._children) and not _runs(pid), 30,
                       f"end of every process under {pid}", poll_s=0.02)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
