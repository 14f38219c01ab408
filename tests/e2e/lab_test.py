#!/usr/bin/python3
"""Is the laboratory itself true? Run: tests/e2e/lab_selftest.py (as root)."""
import json
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from lab import Lab, LabTimeout, start_broker, start_libvirtd, wait_until

DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>VD00000001</name><memory unit='MiB'>160</memory><vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type></os><features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/></disk>
    <serial type='file'><source path='{console}'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/><qemu:arg value='user,id=u0,hostfwd=tcp:{address}:8080-:80'/>
    <qemu:arg value='-device'/><qemu:arg value='virtio-net-pci,netdev=u0,addr=0x10'/>
  </qemu:commandline>
</domain>"""


def processes_about(text):
    """Command lines on the whole machine that mention `text`, ours excepted."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if entry.isdigit() and int(entry) != os.getpid() and text in line:
            found.append(line)
    return found


class NetworkTest(unittest.TestCase):
    def test_hosts_reach_each_other_until_the_cable_is_pulled(self):
        with Lab() as lab:
            nc1, nc2 = lab.host("nc1"), lab.host("nc2")
            self.assertEqual(nc2.run(["hostname"]).stdout.strip(), "nc2")
            self.assertEqual(nc1.run(["ls", "/sys/class/net"]).stdout.split(), ["eth0", "lo"])
            server = nc2.start(["/usr/bin/python3", "-m", "http.server", "--bind", nc2.address, "8000"], "web")
            # The name is looked up on nc1, whose /etc/hosts only its own mount namespace has.
            url = f"http://{nc1.run(['getent', 'hosts', 'nc2']).stdout.split()[0]}:8000/"
            wait_until(lambda: nc1.http("GET", url)[0] == 200, 20, "web server on nc2", [server])
            nc2.link_down()
            with self.assertRaises(OSError):
                nc1.http("GET", url, timeout_s=1)
            nc2.link_up()
            wait_until(lambda: nc1.http("GET", url, timeout_s=2)[0] == 200, 30, "nc2 back on the network")
            server.kill()
            self.assertFalse(server.alive)
            directory, first = lab.dir, nc1.namespaces.pid
        self.assertFalse(os.path.exists(directory))
        self.assertFalse(os.path.exists(f"/proc/{first}/ns/net"))

    def test_two_laboratories_side_by_side_and_leftover_processes_end(self):
        with Lab() as one, Lab() as two:
            self.assertEqual(one.host("nc1").address, two.host("nc1").address)
            marks = []
            for lab in (one, two):
                marks.append(f"sleep {time.monotonic_ns()}")
                lab.hosts["nc1"].run(["setsid", "--fork", *marks[-1].split()])
                wait_until(lambda: processes_about(marks[-1]), 10, marks[-1])
        for mark in marks:
            self.assertEqual(processes_about(mark), [])

    def test_a_mount_on_one_host_is_seen_there_only(self):
        with Lab() as lab:
            nc1, nc2 = lab.host("nc1"), lab.host("nc2")
            small = os.path.join(nc1.dir, "small")
            os.mkdir(small)
            nc1.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small])
            # By a relative path too: the working directory must be the one of the host's own mounts.
            for command in (["head", "-c", "3000000", "/dev/zero"], ["true"]):
                full = nc1.run(["sh", "-c", f"{' '.join(command)} >small/file"], check=False)
                self.assertEqual("No space left" in full.stderr, command[0] == "head", full)
            self.assertTrue(nc1.run(["ls", small]).stdout)
            self.assertEqual(nc2.run(["ls", small]).stdout, "")
            self.assertEqual(os.listdir(small), [])

    def test_after_a_reboot_only_the_disk_and_the_card_are_the_same(self):
        with Lab() as lab:
            nc1, nc2 = lab.host("nc1"), lab.host("nc2")
            facts = ["sh", "-c", "cat /sys/class/net/eth0/address /proc/sys/kernel/random/boot_id"]
            card, boot = nc1.run(facts).stdout.split()
            nc1.run(["sh", "-c", "echo gone > /run/here; echo kept > /mnt/here; mkdir /mnt/m; mount -t tmpfs none /mnt/m; touch /mnt/m/x"])
            sleeper = nc1.start(["sleep", "600"], "sleep")
            nc1.reboot()
            self.assertFalse(sleeper.alive)
            self.assertEqual(nc1.run(["sh", "-c", "ls /run/here /mnt/m/x 2>/dev/null; cat /mnt/here"], check=False).stdout, "kept\n")
            again = nc1.run(facts).stdout.split()
            self.assertEqual(again[0], card)
            self.assertNotEqual(again[1], boot)
            self.assertNotEqual(nc2.run(facts).stdout.split()[1], again[1])
            server = nc1.start(["/usr/bin/python3", "-m", "http.server", "--bind", nc1.address, "8000"], "web")
            wait_until(lambda: nc2.http("GET", f"http://{nc1.address}:8000/")[0] == 200, 20, "web server on nc1", [server])

    def test_a_deadline_tells_what_was_waited_for_and_the_log(self):
        with Lab() as lab:
            host = lab.host("nc1")
            process = host.start(["sh", "-c", "echo the last words; exit 3"], "short")
            self.assertEqual(process.wait(), 3)
            with self.assertRaisesRegex(LabTimeout, r"(?s)not within 0.2 s: a miracle.*the last words"):
                wait_until(lambda: False, 0.2, "a miracle", [process])


class LibvirtTest(unittest.TestCase):
    def test_a_guest_boots_answers_over_the_network_and_outlives_libvirtd(self):
        with Lab() as lab:
            nc1, nc2 = lab.host("nc1"), lab.host("nc2")
            libvirtd, other = start_libvirtd(nc1), start_libvirtd(nc2)
            disk, console = os.path.join(nc1.dir, "disk.qcow2"), os.path.join(nc1.dir, "logs", "console.log")
            nc1.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", lab.sample_image(), disk])
            xml = os.path.join(nc1.dir, "domain.xml")
            with open(xml, "w", encoding="utf-8") as file:
                file.write(DOMAIN.format(disk=disk, console=console, address=nc1.address))
            begun = time.monotonic()
            libvirtd.virsh("create", xml)
            url = f"http://{nc1.address}:8080/"

            def answer():
                return nc2.http("GET", url, timeout_s=3)[1].startswith(b"eduCloud sample guest")
            wait_until(answer, 60, "the guest's web server", [console, libvirtd])
            print(f"guest answered after {time.monotonic() - begun:.1f} s", file=sys.stderr)
            self.assertEqual(nc2.http("GET", url + "cgi-bin/note?text=lab")[1], b"lab\n")
            self.assertEqual(other.virsh("list", "--name").split(), [])
            wait_until(lambda: libvirtd.virsh("qemu-agent-command", "VD00000001", '{"execute":"guest-ping"}'), 30,
                       "guest agent", [libvirtd])
            libvirtd.kill()
            self.assertTrue(answer())
            libvirtd.start()
            self.assertEqual(libvirtd.virsh("list", "--name").split(), ["VD00000001"])
            libvirtd.virsh("destroy", "VD00000001")
            self.assertEqual(libvirtd.virsh("list", "--name").split(), [])
            libvirtd.virsh("create", xml)  # left running for the laboratory to end
            directory = lab.dir
        self.assertEqual(processes_about(directory), [])
        self.assertFalse(os.path.exists(directory))
        left = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith("VD00000001.libvirt-qemu")]
        self.assertEqual(left, [])


class BrokerTest(unittest.TestCase):
    def test_a_broker_takes_its_definitions_survives_a_kill_and_leaves_nothing(self):
        with Lab() as lab:
            clc, nc1 = lab.host("clc"), lab.host("nc1")
            path = os.path.join(lab.dir, "definitions.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"vhosts": [{"name": "/"}],
                           "users": [{"name": "operator", "password": "only-in-this-lab", "tags": ["monitoring"]}],
                           "permissions": [{"user": "operator", "vhost": "/", "configure": "^$", "write": "^$", "read": ".*"}],
                           "queues": [{"name": "q", "vhost": "/", "durable": True, "auto_delete": False,
                                       "arguments": {"x-queue-type": "quorum"}}]}, file)
            broker = start_broker(clc, definitions=path)
            self.assertEqual(broker.ctl("list_queues", "name").split(), ["q"])
            self.assertNotIn("guest", broker.ctl("list_users"))
            self.assertEqual(nc1.http("GET", f"http://{clc.address}:{broker.management_port}/")[0], 200)
            listening = {line.split()[3].rpartition(":")[0] for line in clc.run(["ss", "-Htln"]).stdout.splitlines()}
            self.assertLessEqual(listening, {clc.address, "127.0.0.1", "[::1]"})
            broker.kill()
            wait_until(lambda: not broker.running(), 10, "end of the killed broker")
            broker.start()
            self.assertTrue(broker.running())
            broker.stop()
            self.assertFalse(broker.running())
            left = [line for line in clc.run(["ps", "-eo", "args"]).stdout.splitlines() if "beam" in line or "epmd" in line]
            self.assertEqual(left, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
