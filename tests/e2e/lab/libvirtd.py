"""A libvirtd of its own on a host."""
import os
import shutil
import uuid

from .waiting import LabError, wait_until

_BINDS = {"run": "/run/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt", "log": "/var/log/libvirt",
          "etc": "/etc/libvirt"}


class Libvirtd:
    """A running libvirtd. `socket` works from inside and outside of the host; `uri` is for virConnectOpen."""

    def __init__(self, host, directory):
        self.host, self.dir = host, directory
        self.socket = os.path.join(directory, "run", "libvirt-sock")
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self.lxc_uri = f"lxc+unix:///system?socket={self.socket}"
        self.process = None

    @property
    def log(self):
        return self.process.log

    def start(self):
        """Starts it (again) and waits until it answers; guests that run are adopted."""
        self.process = self.host.start(["libvirtd", "--config", "/etc/libvirt/libvirtd.conf"], "libvirtd")
        wait_until(self._answers, 60, f"libvirtd on {self.host.name}", [self.process])
        return self

    def _answers(self):
        if not self.process.alive:
            raise LabError(f"libvirtd ended with {self.process.returncode}")
        return self.virsh("version", timeout_s=20)

    def virsh(self, *words, check=True, timeout_s=60, data=None):
        """Output of a virsh command."""
        return self.host.run(["virsh", "-c", self.uri, *words], check=check, timeout_s=timeout_s, data=data).stdout

    def start_after_reboot(self):
        """Starts it on its host, which was rebooted: of its directory all but what was in /run is still there."""
        shutil.rmtree(os.path.join(self.dir, "run"))
        _mount(self.host, self.dir)
        return self.start()

    def stop(self):
        """Stops libvirtd only: its guests live on until it starts again, or the host goes down."""
        self.host.note_cgroups()
        self.process.stop()

    def kill(self):
        self.host.note_cgroups()
        self.process.kill()


def _mount(host, directory):
    for name, place in _BINDS.items():
        own = os.path.join(directory, name)
        os.makedirs(own, exist_ok=True)
        os.makedirs(os.path.join(own, "qemu"), exist_ok=True)
        host.run(["mkdir", "-p", place])
        host.run(["mount", "--bind", own, place])


def start_libvirtd(host, directory=None):
    """Starts a libvirtd on `host` whose state is all in `directory` (default <host.dir>/libvirt). LabError if it cannot."""
    if not shutil.which("libvirtd", path="/usr/sbin:/usr/bin"):
        raise LabError("libvirtd is missing: apt-get install libvirt-daemon libvirt-clients qemu-system-x86")
    directory = directory or os.path.join(host.dir, "libvirt")
    _mount(host, directory)
    with open(os.path.join(directory, "etc", "libvirtd.conf"), "w", encoding="utf-8") as file:
        file.write(f'host_uuid = "{uuid.uuid4()}"\n'
                   'auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\nlog_level = 3\nlog_outputs = "3:stderr"\n')
    with open(os.path.join(directory, "etc", "qemu.conf"), "w", encoding="utf-8") as file:
        file.write('user = "root"\ngroup = "root"\ndynamic_ownership = 0\nsecurity_driver = "none"\nnamespaces = []\n'
                   f'stdio_handler = "file"\nmigration_host = "{host.address}"\nmigration_address = "{host.address}"\n')
    return Libvirtd(host, directory).start()
