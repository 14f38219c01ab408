#!/usr/bin/python3
"""What the cloud must stand, on real hosts and guests: every daemon and the broker killed in the middle of a prepare and of
a submit, full disks, hostile files and messages. Transfers are slowed by tbf so that there is a middle."""
import json
import os
import subprocess
import time
import unittest

from cloud import BIN, Cloud
from cloud_cli import CommandError
from lab import injected, wait_until


NOISE = 12 << 20


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.report = []
        cls.cloud = cls.enterClassContext(Cloud(nodes=1, small_disks={"nc1": "900m", "walrus": "900m"}, min_disk_gib=0))
        cls.cli = cls.cloud.cli
        cls.noise = cls.cloud.dir / "noise"
        cls.noise.write_bytes(os.urandom(NOISE))
        cls.noise.chmod(0o644)
        cls.image = cls.import_noisy("sample")

    @classmethod
    def import_noisy(cls, name):
        """The sample guest with 12 MiB of noise behind its partitions and as much room after: what is in the cloud already
        is not moved again, so a transfer with a middle needs something new."""
        raw = cls.cloud.dir / f"{name}.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", cls.cloud.lab.sample_image(), raw], check=True, timeout=120)
        with open(raw, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(os.urandom(NOISE))
            file.truncate(file.tell() + 2 * NOISE)
        return cls.cli.import_image(raw, name)

    @classmethod
    def tearDownClass(cls):
        print("\nREPORT faults injected on hosts main (clc, walrus), cc1, nc1")
        for line in cls.report:
            print("  " + line)

    def setUp(self):
        self.began = time.monotonic()

    def tearDown(self):
        for name in ("main", "cc1", "nc1"):
            self.cloud.limit_rate(name, None)
        self.report.append(f"{self._testMethodName[5:]:<50} {time.monotonic() - self.began:6.1f} s")

    def in_host(self, name, *words, check=True):
        return self.cloud.host_of(name).run(list(words), check=check, timeout_s=120).stdout

    def partial_images(self, name):
        """Files under images/ that are not a complete version: there must never be one."""
        prefix = self.cloud.storage(name)
        return self.in_host(name, "bash", "-c", f"cd {prefix} 2>/dev/null && find images -name '*.part' -o -name '*.tmp' | head")

    def wait_progress(self, tid, phase_state, least_bytes=1):
        def moving():
            task = self.cloud.task(tid)
            self.assertFalse(task["failed"], task["errormsg"])
            return f"{task['phase']}/{task['state']}" == phase_state and task["bytes_done"] >= least_bytes
        wait_until(moving, 90, f"{tid} to be {phase_state} and moving")

    def test_10_every_daemon_dies_in_the_middle_of_a_prepare(self):
        imgid = self.import_noisy("other")
        insid = self.cli.define(imgid, "prepare-faults")
        self.cloud.limit_rate("cc1", "6mbit")
        self.cloud.limit_rate("nc1", "6mbit")
        tid = self.cli("vm", "run", insid)["task"]["tid"]
        for name in ("walrus", "clc", "cc1", "nc1"):
            self.wait_progress(tid, "preparing/downloading")
            self.cloud.restart(name)
            injected("daemon-killed")
            injected("transfer-cut")
            self.assertEqual(self.partial_images("nc1"), "")
        self.cloud.limit_rate("cc1", None)
        self.cloud.limit_rate("nc1", None)
        self.cloud.wait_task(tid, ["editing/running"], 240)
        self.cloud.guest(insid)
        self.cli("vm", "delete", insid, "--wait")
        self.cli("image", "delete", imgid, "--wait")

    def test_20_every_daemon_dies_in_the_middle_of_a_submit(self):
        task = self.cli("image", "modify", self.image, "--memory-mib", 160, "--wait", "--timeout", 300)
        tid, insid = task["tid"], task["tid"].split(":")[2]
        self.cloud.guest(insid).add_note("survivor")
        self.cli.stop(insid)
        overlay = self.cloud.storage("nc1") / "VMs" / insid / "overlay.qcow2"
        size = json.loads(self.in_host("nc1", "qemu-img", "info", "--output=json", str(overlay)))["virtual-size"]
        self.in_host("nc1", "qemu-io", "-f", "qcow2", "-c", f"write -s {self.noise} {size - NOISE} {NOISE}", str(overlay))
        self.cloud.limit_rate("cc1", "6mbit")
        self.cloud.limit_rate("main", "6mbit")
        before = self.cli.versions(self.image)
        self.cli("image", "submit", tid)
        for name in ("nc1", "cc1", "clc", "walrus"):
            self.wait_progress(tid, "submitting/uploading")
            self.cloud.restart(name)
            injected("daemon-killed")
            injected("transfer-cut")
            self.assertEqual(self.partial_images("walrus"), "")
        self.cloud.limit_rate("cc1", None)
        self.cloud.limit_rate("main", None)
        wait_until(lambda: self.cli.versions(self.image) == before + [before[-1] + 1], 240, "exactly one new version")
        vm = self.cli.define(self.image, "after-faults")

        def runs():  # clc must have heard of cc1 and nc1 again
            try:
                return self.cli.run(vm)
            except CommandError as refused:
                if "silent" in refused.output or "no heartbeat" in refused.output:
                    return None
                raise
        wait_until(runs, 60, "the nodes to be known again", poll_s=1)
        self.assertIn("survivor", self.cloud.guest(vm).notes())
        self.cli("vm", "delete", vm, "--wait")

    def test_30_broker_killed_in_the_middle_of_a_task(self):
        imgid = self.import_noisy("third")
        insid = self.cli.define(imgid, "broker-faults")
        self.cloud.limit_rate("nc1", "8mbit")
        tid = self.cli("vm", "run", insid)["task"]["tid"]
        self.wait_progress(tid, "preparing/downloading")
        self.cloud.broker.kill()
        injected("broker-killed")
        self.cloud.broker.start()
        self.cloud.limit_rate("nc1", None)
        self.cloud.wait_task(tid, ["editing/running"], 240)
        self.cloud.guest(insid)
        self.cli("vm", "delete", insid, "--wait")
        self.cli("image", "delete", imgid, "--wait")

    def test_31_libvirtd_and_nc_die_and_the_guest_lives_on(self):
        insid = self.cli.define(self.image, "adopted")
        self.cli.run(insid)
        guest = self.cloud.guest(insid)
        guest.add_note("before")
        self.cloud.libvirtd["nc1"].kill()
        injected("hypervisor")
        self.cloud.libvirtd["nc1"].start()
        self.cloud.restart("nc1")
        self.assertIn("before", self.cloud.guest(insid).notes(), "the same guest, not another one")
        self.assertEqual(self.cli("vm", "show", insid)["state"], "running")
        self.cli.stop(insid)
        self.cli("vm", "delete", insid, "--wait")

    def test_32_a_guest_killed_from_outside_is_seen(self):
        insid = self.cli.define(self.image, "killed")
        self.cli.run(insid)
        self.cloud.guest(insid)
        pid = self.in_host("nc1", "pgrep", "-f", f"guest={insid},").split()[0]
        self.in_host("nc1", "kill", "-KILL", pid)
        injected("hypervisor")
        wait_until(lambda: self.cli("vm", "show", insid)["state"] in ("stopped", "failed", "defined"), 30, "the end to be seen")
        self.cli.run(insid)
        self.cloud.guest(insid)
        self.cli("vm", "delete", insid, "--wait")

    def fill(self, name):
        path = self.cloud.storage(name) / "filler"
        self.in_host(name, "bash", "-c", f"dd if=/dev/zero of={path} bs=1M 2>/dev/null; true")
        injected("bad-disk")

    def free(self, name):
        self.in_host(name, "rm", "-f", str(self.cloud.storage(name) / "filler"))

    def empty_cache(self):
        """A node makes room by evicting what it does not need: without a cache it has nothing to evict."""
        self.cloud.daemons["nc1"].kill()
        self.in_host("nc1", "rm", "-rf", str(self.cloud.storage("nc1") / "images"))
        self.cloud.start("nc1")
        self.cloud.wait_healthy("nc1")

    def test_40_disk_full_on_the_node(self):
        self.empty_cache()
        imgid = self.cli.import_image(self.cloud.lab.sample_image("fourth"), "fourth")
        insid = self.cli.define(imgid, "no-room")
        self.fill("nc1")
        with self.assertRaises(CommandError) as refused:
            self.cli.run(insid)
        self.assertRegex(refused.exception.output.lower(), r"space|disk|full|room")
        self.assertEqual(self.in_host("nc1", "bash", "-c", f"ls {self.cloud.storage('nc1')}/images/{imgid}/machine 2>/dev/null; true"), "")
        self.free("nc1")

        def runs():
            try:
                return self.cli.run(insid)
            except CommandError:
                return None  # the next heartbeat tells clc that there is room again
        wait_until(runs, 120, "the desktop to start once there is room")
        self.cloud.guest(insid)
        self.cli("vm", "delete", insid, "--wait")
        self.cli("image", "delete", imgid, "--wait")

    def test_41_disk_full_on_walrus(self):
        file = self.cloud.lab.sample_image("fifth")
        self.fill("walrus")
        with self.assertRaises(CommandError) as refused:
            self.cli("image", "import", file, "--name", "fifth", "--wait")
        self.assertRegex(refused.exception.output.lower(), r"space|disk|full|room")
        self.free("walrus")
        left = self.in_host("walrus", "bash", "-c", f"cd {self.cloud.storage('walrus')}/images && ls -d IMG*/versions/* | wc -l")
        self.assertEqual(int(left), sum(len(self.cli.versions(i["imgid"])) for i in self.cli("image", "list")["items"]))
        for image in self.cli("image", "list")["items"]:
            if image["name"] == "fifth":
                self.cli("image", "delete", image["imgid"], "--wait")
        imgid = self.cli.import_image(file, "fifth-again")
        self.cli("image", "delete", imgid, "--wait")

    def test_50_hostile_image_files(self):
        secret = self.cloud.dir / "secret.raw"
        secret.write_bytes(b"top secret" + bytes(1 << 20))
        bad = self.cloud.dir / "bad.qcow2"
        data_file = ["-o", f"data_file={self.cloud.dir}/data.raw,data_file_raw=on"]
        for options, name in ((["-b", str(secret), "-F", "raw"], "secret.raw"), (data_file, "data.raw")):
            bad.unlink(missing_ok=True)
            subprocess.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", *options, str(bad), "1M"], check=True, timeout=60,
                           cwd=self.cloud.dir, stderr=subprocess.DEVNULL)
            with self.assertRaises(CommandError) as refused:
                self.cli("image", "import", bad, "--name", f"bad-{name}", "--wait")
            self.assertIn(name, refused.exception.output.lower())
        for image in self.cli("image", "list")["items"]:
            if image["name"].startswith("bad-"):
                self.cli("image", "delete", image["imgid"], "--wait")

    def test_60_poison_on_every_queue_is_dead_lettered_alone(self):
        def dead():
            return len(self.cli("dead-letter", "list")["items"])
        poison = ["{", "[]", '{"type":"cmd"}', json.dumps({"type": "taskstatus", "phase": 7}), "x" * 70_000]
        targets = [("nc_cmd", "nc1"), ("cc_cmd", "cc1"), ("walrus_cmd", "walrus"), ("cc_status", "taskstatus.nc-nc1"),
                   ("clc_status", "taskstatus.cc-cc1")]
        before = dead()
        self.cloud.publish([(exchange, key, body) for exchange, key in targets for body in poison])
        injected("poison", len(poison) * len(targets))
        wait_until(lambda: dead() >= before + len(poison) * len(targets), 90, f"{len(poison) * len(targets)} dead letters")
        letters = self.cli("dead-letter", "list")["items"]
        self.assertNotIn("delivery_limit", {one["reason"] for one in letters}, "refused at first sight")
        self.assertTrue(all(one["cause"] for one in letters))
        self.cli("dead-letter", "drop", "--all")
        self.assertEqual(dead(), 0)
        insid = self.cli.define(self.image, "neighbour")
        self.cli.run(insid)
        self.cloud.guest(insid)
        self.cli("vm", "delete", insid, "--wait")

    def test_70_bad_requests_are_refused_by_key(self):
        main = self.cloud.main
        token = json.loads((self.cloud.dir / "cli/educloud/credentials").read_text())["token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        base = f"http://{main.address}:8000/clc/api/1.0"

        def ask(method, path, body=None):
            status, text = main.http(method, base + path, data=body, headers=headers)
            return status, json.loads(text) if text else {}
        status, answer = ask("POST", "/vms", b'{"name": 7}')
        self.assertEqual((status, answer["error"]["key"]), (400, "name"))
        self.assertEqual(ask("POST", "/vms", b"{")[0], 400)
        self.assertEqual(ask("POST", "/vms", b"[" * 100_000)[0], 400)
        self.assertEqual(ask("POST", "/vms", b" " * 300_000)[0], 413)
        self.assertEqual(ask("GET", "/vms/VD00000000")[0], 404)
        for path in ("/vms/..%2f..%2fetc%2fpasswd", "/images/IMG1%00", "/vms/VD0000000g"):
            self.assertIn(ask("GET", path)[0], (400, 404), path)
        headers.pop("Authorization")
        self.assertEqual(ask("GET", "/vms")[0], 401)

    def test_80_daemons_stop_orderly(self):
        for name in ("nc1", "cc1", "walrus", "clc"):
            self.assertEqual(self.cloud.daemons[name].stop(40), 0, name)
        bad = self.cloud.dir / "bad.conf"
        bad.write_text("host = 7\n")
        done = self.cloud.main.run([BIN / "educloud-nc", "--config", bad], check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("bad.conf:1", done.stderr)


if __name__ == "__main__":
    unittest.main()
