#!/usr/bin/python3
"""The flows of the predecessor's notes 6.3.1 on four hosts with real guests: the image travels walrus -> cc -> nc,
two nodes at once, a desktop is reverted at each start, MODIFY and BUILD come back as versions."""
import pathlib
import subprocess
import threading
import time
import unittest

from checks import Timed
from cloud import Cloud
from lab import wait_until


class Flows(Timed, unittest.TestCase):
    """One cloud for all: the tests run in the order of their names, each using what the ones before made."""

    flow = "images and desktops"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli

    def test_10_import(self):
        type(self).image = self.cli.import_image(self.cloud.lab.sample_image(), "sample")
        self.assertEqual(self.cli.versions(self.image), [1])
        self.assertEqual(self.cli.current_version(self.image), 1)
        self.assertTrue((self.cloud.storage("walrus") / "images" / self.image / "manifest").is_file())

    def test_20_desktops_on_two_nodes_at_once(self):
        made = {}

        def run(node):
            insid = self.cli("vm", "define", "--image", self.image, "--name", f"on-{node}", "--type", "vdsmall",
                             "--memory-mib", 160, "--node", node)["insid"]
            made[node] = self.cli.run(insid)
        threads = [threading.Thread(target=run, args=(node,)) for node in ("nc1", "nc2")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(made), ["nc1", "nc2"])
        for node, vm in made.items():
            self.assertEqual(vm["task"]["node"], node)
            self.cloud.guest(vm["insid"])
            self.assertIn(vm["insid"], self.cloud.libvirtd[node].virsh("list", "--name"))
            self.assertTrue((self.cloud.storage(node) / "images" / self.image / "machine").is_file())
        type(self).vms = {node: vm["insid"] for node, vm in made.items()}
        self.assertTrue((self.cloud.storage("cc1") / "images" / self.image / "versions/1/manifest").is_file())

    def test_21_heartbeat_tells_what_the_hypervisor_says(self):
        def seen():
            return {vm["insid"]: vm["state"] for vm in self.cli("node", "show", "nc1")["vms"]}.get(self.vms["nc1"]) == "running"
        wait_until(seen, 30, "the VM in the node's heartbeat")
        node = self.cli("node", "show", "nc1")
        self.assertEqual(node["hypervisor"], "qemu")  # /dev/kvm of such machines does not boot anything

    def test_22_screenshot_and_console(self):
        shot = self.cloud.dir / "shot.png"
        self.cli.raw("vm", "screenshot", self.vms["nc2"], "-o", shot)
        self.assertEqual(shot.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        wait_until(lambda: "sample guest ready" in self.cli.raw("vm", "console", self.vms["nc2"]), 60, "the console log")

    def test_23_display_wants_its_password(self):
        vm = self.cli("vm", "show", self.vms["nc1"])
        host, port = vm["display_address"].rsplit(":", 1)

        def banner():
            import socket
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                version = connection.recv(12)
                connection.sendall(version)
                count = connection.recv(1)[0]
                return version, list(connection.recv(count))
        version, security = self.cloud.hosts["cc1"].inside(banner)
        self.assertTrue(version.startswith(b"RFB 003"))
        self.assertEqual(security, [2], "VNC authentication and nothing else")
        self.assertEqual(len(vm["display_password"]), 8)

    def test_24_a_desktop_is_reverted_at_each_start(self):
        insid = self.vms["nc1"]
        guest = self.cloud.guest(insid)
        guest.add_note("scribble")
        self.assertIn("scribble", guest.notes())
        tid = self.cli("vm", "show", insid)["task"]["tid"]
        self.cli.stop(insid)
        self.assertEqual(self.cloud.task(tid)["prompt"], "the guest powered off", "by its power button, not hard")
        self.assertNotIn(insid, self.cloud.libvirtd["nc1"].virsh("list", "--all", "--name"))
        self.cli.run(insid)
        self.assertNotIn("scribble", self.cloud.guest(insid).notes())

    def test_25_a_guest_that_powers_off_is_seen(self):
        insid = self.vms["nc2"]
        guest = self.cloud.guest(insid)
        guest.get(guest.url + "/cgi-bin/poweroff")
        wait_until(lambda: self.cli("vm", "show", insid)["state"] in ("stopped", "defined"), 90, "the stop to be seen")

    def test_30_modify(self):
        task = self.cli("image", "modify", self.image, "--memory-mib", 160, "--wait", "--timeout", 300)
        insid = task["tid"].split(":")[2]
        guest = self.cloud.guest(insid)
        guest.add_note("modified")
        self.cli.stop(insid)
        self.cli.submit(task["tid"])
        self.assertEqual(self.cli.versions(self.image), [1, 2])
        self.assertEqual(self.cli.current_version(self.image), 2)
        for name in ("nc1", "nc2"):
            left = [str(p) for p in (self.cloud.storage(name)).rglob(f"*{insid}*")]
            self.assertEqual(left, [], "the node keeps nothing of a finished task")

    def test_31_the_next_start_has_the_new_version(self):
        insid = self.vms["nc2"]
        self.cli.run(insid)
        self.assertIn("modified", self.cloud.guest(insid).notes())

    def test_32_the_running_desktop_kept_its_version(self):
        self.assertNotIn("modified", self.cloud.guest(self.vms["nc1"]).notes())

    def test_40_build(self):
        task = self.cli("image", "build", self.image, "--name", "built", "--memory-mib", 160, "--wait", "--timeout", 300)
        source, target, insid = task["tid"].split(":")
        self.assertEqual(source, self.image)
        guest = self.cloud.guest(insid)
        guest.add_note("built")
        self.cli.stop(insid)
        self.cli.submit(task["tid"])
        self.assertEqual(self.cli.versions(target), [1])
        self.assertEqual(self.cli.versions(self.image), [1, 2], "the source is untouched")
        built = self.cli.define(target, "of-built")
        self.cli.run(built)
        notes = self.cloud.guest(built).notes()
        self.assertIn("built", notes)
        self.assertIn("modified", notes)
        self.cli("vm", "delete", built, "--wait")

    def test_41_a_temporary_desktop_goes_when_it_stops(self):
        vm = self.cli("vm", "define", "--image", self.image, "--temporary", "--name", "passing", "--memory-mib", 160, "--wait",
                      "--timeout", 300)
        insid = vm["insid"]
        self.assertTrue(insid.startswith("TVD"))
        self.cloud.guest(insid)
        self.cli.stop(insid)
        wait_until(lambda: insid not in [v["insid"] for v in self.cli("vm", "list")["items"]], 90, "the TVD to go")

    def test_50_prune_knows_who_needs_a_version(self):
        from cloud_cli import CommandError
        with self.assertRaises(CommandError) as refused:
            self.cli("image", "prune", self.image, "--versions", 1, "--wait")  # nc1's desktop runs on it
        self.assertIn(self.vms["nc1"], refused.exception.output)
        self.cli("image", "rollback", self.image, "--to", 1, "--wait")
        self.assertEqual(self.cli.current_version(self.image), 1)
        self.cli("vm", "delete", self.vms["nc2"], "--wait")
        self.cli("image", "prune", self.image, "--versions", 2, "--wait")
        self.assertEqual(self.cli.versions(self.image), [1])

    def test_60_broker_shows_the_contracts_queues(self):
        names = set(self.cloud.broker.ctl("list_queues", "name").split())
        wanted = {"cc_cmd_queue.cc1", "walrus_cmd_queue", "cc_status_queue", "clc_status_queue", "cc_heartbeat_queue",
                  "clc_heartbeat_queue", "dead_letter_queue", "console_tap_queue", *(f"nc_cmd_queue.{n}" for n in ("nc1", "nc2")),
                  *(f"nc_lease_queue.{n}" for n in ("nc1", "nc2"))}
        self.assertEqual(wanted - names, set())

    def test_61_promtool_accepts_every_metrics_file(self):
        files = sorted(self.cloud.dir.rglob("*.prom"))
        self.assertGreaterEqual(len(files), 5)
        for file in files:
            done = subprocess.run(["promtool", "check", "metrics"], input=file.read_bytes(), capture_output=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""), file)

    def test_62_no_secret_in_any_log(self):
        secrets = [p.read_text().strip() for p in (self.cloud.conf / "secrets").iterdir()]
        secrets.append(self.cli("vm", "show", self.vms["nc1"]).get("display_password") or "no display password")
        for host in self.cloud.lab.hosts.values():
            for log in host.logs:
                text = pathlib.Path(log).read_text(encoding="utf-8", errors="replace")
                for secret in secrets:
                    self.assertNotIn(secret, text, log)

    def test_70_delete_everything(self):
        for vm in self.cli("vm", "list")["items"]:
            self.cli("vm", "delete", vm["insid"], "--wait")
        for image in self.cli("image", "list")["items"]:
            self.cli("image", "delete", image["imgid"], "--wait")
        self.assertEqual(self.cli("vm", "list")["items"], [])
        wait_until(lambda: self.cli("image", "list")["items"] == [], 60, "the images to go")
        self.assertEqual(list((self.cloud.storage("walrus") / "images").glob("IMG*")), [])
        for process in self.cloud.daemons.values():
            self.tell(f"{process.name}: resident memory at the end", f"{int(rss_kib(process.pid)) / 1024:6.1f} MiB")


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith("VmRSS"))


if __name__ == "__main__":
    unittest.main()
