#!/usr/bin/python3
"""What an operator does, on real hosts with real guests: asks whether a class fits and starts it, watches the boot gate, asks
why a start was refused, goes back to a backup, takes a node out of service, looks at what was refused."""
import json
import os
import re
import subprocess
import time
import unittest
from datetime import datetime

from cloud import BIN, Cloud
from cloud_cli import CommandError
from lab import wait_until

SEATS = 3          # of each node
SLOT_S = 20        # boot_slot_s
HOST_CPUS = os.cpu_count()
CPUS = 1 + HOST_CPUS // 32  # of a desktop, so that a large machine needs no hundred of them to be full
QEMU = "/usr/bin/qemu-system-x86_64"


class Operator(unittest.TestCase):
    """One cloud for all: the tests run in the order of their names, each using what the ones before left."""

    @classmethod
    def setUpClass(cls):
        cls.report = []
        # 0.2 more than the seats: no rounding may take one away.
        overcommit = round((SEATS + 0.2) * CPUS / HOST_CPUS, 3)
        cls.cloud = cls.enterClassContext(Cloud(nodes=2, placement={"max_parallel_boots": 1, "boot_slot_s": SLOT_S,
                                                                    "cpu_overcommit": overcommit}))
        cls.cli = cls.cloud.cli
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        cls.cli("image", "push", cls.image, "--cluster", "cc1", "--wait")
        wait_until(lambda: all(cls.cli("node", "show", name).get("images") for name in ("nc1", "nc2")), 30, "both nodes to show the image")

    @classmethod
    def tearDownClass(cls):
        print("\nREPORT an operator's day, on hosts main (clc, walrus), cc1, nc1, nc2; guests under TCG")
        for line in cls.report:
            print("  " + line)

    def setUp(self):
        self.began = time.monotonic()

    def tearDown(self):
        self.report.append(f"{self._testMethodName[5:]:<50} {time.monotonic() - self.began:6.1f} s")

    def define(self, name, node=None):
        words = ["vm", "define", "--image", self.image, "--name", name, "--type", "vdsmall", "--memory-mib", 160, "--cpus", CPUS]
        return self.cli(*words, *(["--node", node] if node else []))["insid"]

    def refused(self, *words):
        """The CommandError of a command that must fail."""
        with self.assertRaises(CommandError) as raised:
            self.cli(*words)
        return raised.exception

    def plan(self, count, *more):
        """(exit code, the plan)."""
        words = ["plan", "--image", self.image, "--count", count, *more]
        try:
            return 0, self.cli(*words)
        except CommandError as missing:
            return missing.code, json.loads(missing.output.splitlines()[0])

    def vm(self, insid):
        return self.cli("vm", "show", insid)

    def task_of(self, insid):
        return self.cloud.task(f"{self.image}:{self.image}:{insid}")

    def wait_vm(self, insid, state, deadline_s=120):
        wait_until(lambda: self.vm(insid)["state"] == state, deadline_s, f"{insid} to be {state}", [self.cloud.daemons["clc"].log])
        return self.vm(insid)

    def guest(self, insid):
        """Where it is reached is known again with its node's next heartbeat, should clc just have started."""
        wait_until(lambda: self.vm(insid)["web_url"], 30, f"the address of {insid}")
        return self.cloud.guest(insid)

    def on_node(self, name):
        """What libvirt runs there."""
        return set(self.cloud.libvirtd[name].virsh("list", "--name").split())

    def boots(self, node):
        """(begun, ended) in seconds of each boot on `node`, by begin, as clc's log has it."""
        begun, out = {}, []
        with open(self.cloud.daemons["clc"].log, encoding="utf-8", errors="replace") as log:
            for line in log:
                at = datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() if line.startswith("20") else 0
                queued = re.search(r" command\.queued tid=(\S+) op=image/run .*node=(\S+)", line)
                over = re.search(r" task\.state tid=(\S+) phase=editing state=(?:running|stopped) ", line)
                if queued and queued.group(2) == node:
                    begun[queued.group(1)] = at
                elif over and over.group(1) in begun:
                    out.append((begun.pop(over.group(1)), at))
        self.assertEqual(begun, {}, "every boot has ended")
        return sorted(out)

    def check_gate(self, node, count):
        """Two boot at once only where the one before has used up its slot."""
        boots = self.boots(node)
        self.assertGreaterEqual(len(boots), count)
        for i, (begun, ended) in enumerate(boots):
            for later, _ in boots[i + 1:]:
                self.assertTrue(later >= ended - 0.005 or later - begun >= SLOT_S - 0.1, (node, boots))

    def qemu_that_hangs(self, node, insid):
        """From now on QEMU of `insid` says nothing until the file that is returned is gone; the others run as ever."""
        # A whole prefix, for QEMU finds its parts relative to its program.
        prefix = self.cloud.dir / "qemu" / "usr"
        (prefix / "bin").mkdir(parents=True)
        for name in ("share", "lib"):
            (prefix / name).symlink_to(f"/usr/{name}")
        real, wrapper, hold = prefix / "bin/qemu", prefix / "wrapper", prefix / "hold"
        for file in (real, hold):
            file.touch()
        wrapper.write_text(f'#!/bin/sh\ncase "$*" in *guest={insid},*) while [ -e {hold} ]; do sleep 0.2; done ;; esac\n'
                           f'exec {real} "$@"\n')
        wrapper.chmod(0o755)
        host = self.cloud.hosts[node]
        host.run(["mount", "--bind", QEMU, real])
        host.run(["mount", "--bind", wrapper, QEMU])
        return hold

    def test_10_plan(self):
        code, plan = self.plan(8)
        self.assertEqual((code, plan["fits"], plan["missing"]), (7, 2 * SEATS, 8 - 2 * SEATS), plan)
        self.assertEqual({one["host"]: one["vms"] for one in plan["per_node"]}, {"nc1": SEATS, "nc2": SEATS})
        short = plan["bottleneck"]
        self.assertEqual((short["resource"], short["nodes"], short["short_by"]), ("cpu", ["nc1", "nc2"], plan["missing"] * CPUS))
        with self.assertRaises(CommandError) as told:
            self.cli.raw("plan", "--image", self.image, "--count", 8, "--cpus", CPUS)
        self.assertIn("6 of 8 fit", told.exception.output)
        self.assertIn("2 of 8 find no place: cpus", told.exception.output)
        code, plan = self.plan(2 * SEATS)
        self.assertEqual((code, plan["fits"], plan["bottleneck"]), (0, 2 * SEATS, None))

    def test_11_plan_short_of_memory(self):
        whole = self.cli("node", "show", "nc1")["mem_mib"]
        code, plan = self.plan(2, "--memory-mib", whole)
        self.assertEqual((code, plan["fits"], plan["bottleneck"]["resource"]), (7, 0, "memory"), plan)
        smaller = plan["bottleneck"]["memory_mib_that_fits"]
        self.assertGreater(smaller, 0)
        self.assertLess(smaller, whole)
        code, plan = self.plan(2, "--memory-mib", smaller * 3 // 4)  # the machine may be busy with something else as well
        self.assertEqual((code, plan["fits"]), (0, 2), plan)

    def test_20_boot_gate_and_a_vm_that_does_not_come_up(self):
        bad, *good = type(self).gate = [self.define(f"gate-{i}", "nc1") for i in range(SEATS)]
        hold = self.qemu_that_hangs("nc1", bad)
        self.addCleanup(hold.unlink, missing_ok=True)
        self.cli("vm", "run", bad)
        self.cloud.wait_task(self.task_of(bad)["tid"], ["editing/booting"], 60)
        for insid in good:
            self.cli("vm", "run", insid)

        def queued():
            tasks = [self.task_of(insid) for insid in good]
            return tasks if sorted((task["queue_place"], task["queue_length"]) for task in tasks) == [(1, 2), (2, 2)] else None
        for task in wait_until(queued, SLOT_S, "both to have a place in the queue"):
            self.assertIn(f"place {task['queue_place']} of 2 in the boot queue of nc1: at most 1 boot", task["queue_reason"])
        self.assertIn("in the boot queue of nc1", self.cli.raw("task", "list"))
        for insid in good:
            self.wait_vm(insid, "running", SLOT_S + 60)
        self.assertEqual(f"{self.task_of(bad)['phase']}/{self.task_of(bad)['state']}", "editing/booting")
        self.assertEqual(self.cli("node", "show", "nc1")["state"], "up", "one QEMU that hangs is not a node that is silent")
        hold.unlink()
        self.wait_vm(bad, "running")
        for insid in (bad, *good):
            self.guest(insid)
        self.check_gate("nc1", SEATS)

    def test_30_as_many_start_as_planned(self):
        code, plan = self.plan(5)
        self.assertEqual((code, plan["fits"]), (7, SEATS), "nc1 is full")
        started, left = [], []
        for i in range(5):
            insid = self.define(f"desktop-{i}")
            try:
                self.cli("vm", "run", insid)
                started.append(insid)
            except CommandError as full:
                self.assertEqual(full.code, 7, full)
                left.append(insid)
        self.assertEqual((len(started), len(left)), (plan["fits"], plan["missing"]))
        for insid in started:
            self.wait_vm(insid, "running")
        for insid in started:
            self.guest(insid)
        self.assertEqual([len(self.on_node(name)) for name in ("nc1", "nc2")], [SEATS, SEATS])
        self.check_gate("nc2", SEATS)
        type(self).desktops, type(self).left = started, left

    def test_31_why_not_and_its_remedy(self):
        insid = self.left[0]
        why = self.cli("task", "why", insid)
        self.assertEqual((why["chosen"], [one["host"] for one in why["nodes"]]), ("", ["nc1", "nc2"]))
        for one in why["nodes"]:
            self.assertEqual((one["fits"], one["lacks"], one["vms"]), (False, ["cpu"], SEATS))
            self.assertRegex(one["reason"], rf"^cpu: needs {CPUS}, has 0 of {HOST_CPUS} x \d+(\.\d+)? \({SEATS * CPUS} promised\)$")
        self.assertEqual(why["nearest_fix"], f"nc1: stop VMs that hold {CPUS} cpus")
        self.assertIn(why["nearest_fix"], self.cli.raw("task", "why", insid))
        self.cli.stop(self.gate[0])
        self.assertEqual(self.cli.run(insid)["task"]["node"], "nc1")
        self.assertEqual(self.cli("task", "why", insid)["chosen"], "nc1")
        self.guest(insid)

    def test_40_back_to_a_backup(self):
        """Afterwards the book has to find out what became of each desktop since."""
        kept, stopped_since, spare = self.desktops
        started_since, deleted_since = self.gate[0], self.gate[1]
        self.cli("vm", "delete", spare, "--wait")
        self.guest(kept).add_note("before")
        made = self.cli("backup")
        self.assertIn(made["file"], [one["file"] for one in self.cli("backup", "--list")["items"]])
        nobody = type(self).nobody = self.define("since", "nc2")
        self.cli.run(nobody)
        self.cli.stop(stopped_since)
        self.cli("vm", "delete", deleted_since, "--wait")
        self.cli.run(started_since)
        self.guest(started_since).add_note("since")
        self.cli("vm", "delete", self.define("passing"), "--wait")
        self.assertEqual(self.cloud.daemons["clc"].stop(40), 0)
        words = [BIN / "educloud", "restore", made["file"], "--config", self.cloud.config_files["clc"], "--json"]
        told = json.loads(self.cloud.main.run(words).stdout)
        self.assertEqual((told["accounts"], told["images"]), (1, 1))
        self.cloud.start("clc")
        self.cloud.wait_healthy("clc")
        self.assertEqual(self.refused("vm", "list").code, 3, "everybody has to log in again")
        self.cloud.login()
        type(self).orphaned_at = time.monotonic()
        self.assertEqual([one["imgid"] for one in self.cli("image", "list")["items"]], [self.image])
        names = {one["insid"] for one in self.cli("vm", "list")["items"]}
        self.assertIn(deleted_since, names)
        self.assertFalse(names & {nobody, spare})
        self.assertEqual(self.vm(kept)["state"], "running")
        self.assertIn("before", self.guest(kept).notes(), "the same guest, not another one")

    def test_41_second_clc_is_refused(self):
        clc = [BIN / "educloud-clc", "--config", self.cloud.config_files["clc"]]
        done = self.cloud.main.run(clc, check=False, timeout_s=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"clc\.sqlite is in use by another process .*stop that one first")
        words = [BIN / "educloud", "restore", self.cli("backup")["file"], "--config", self.cloud.config_files["clc"]]
        done = self.cloud.main.run(words, check=False)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn("is in use by another process", done.stderr)
        self.assertEqual(self.vm(self.desktops[0])["state"], "running", "the first has not noticed")

    def test_42_dead_letters(self):
        self.cloud.publish([("nc_cmd", "nc1", '{"type":"cmd"}'), ("clc_status", "taskstatus.cc-cc1", "[not json")])
        letters = wait_until(lambda: (lambda items: items if len(items) == 2 else None)(self.cli("dead-letter", "list")["items"]), 60,
                             "two dead letters")
        by_queue = {one["queue"]: one for one in letters}
        self.assertEqual(set(by_queue), {"nc_cmd_queue.nc1", "clc_status_queue"})
        self.assertTrue(all(one["cause"] and one["reason"] == "rejected" for one in letters), letters)
        status, command = by_queue["clc_status_queue"]["id"], by_queue["nc_cmd_queue.nc1"]["id"]
        self.assertIn("[not json", self.cli.raw("dead-letter", "show", status))
        self.assertEqual(self.refused("dead-letter", "retry", command).code, 5)
        self.assertEqual(self.cli("dead-letter", "drop", status), {"dropped": 1})
        self.assertEqual(self.refused("dead-letter", "show", status).code, 4)
        self.assertEqual([one["id"] for one in self.cli("dead-letter", "list")["items"]], [command])
        self.cli("dead-letter", "drop", "--all")
        self.assertEqual(self.cli("dead-letter", "list")["items"], [])

    def test_43_book_and_nodes_agree_again(self):
        stopped_since, started_since, deleted_since = self.desktops[1], self.gate[0], self.gate[1]
        vm = self.wait_vm(started_since, "running", 120)
        self.assertEqual(vm["task"]["node"], "nc1")
        self.assertIn("since", self.guest(started_since).notes(), "adopted, and reached where it was")
        self.wait_vm(stopped_since, "stopped")

        def ended():
            return self.vm(deleted_since)["state"] in ("stopped", "failed")
        wait_until(ended, 150, "the desktop that was deleted not to be said to run", [self.cloud.daemons["clc"].log])
        self.assertNotIn(deleted_since, self.on_node("nc1"))
        ports = [(vm["task"]["node"], vm["web_url"]) for vm in self.cli("vm", "list")["items"] if vm["state"] == "running"]
        self.assertEqual(len(set(ports)), len(ports), "no port in two hands")

    def test_50_no_new(self):
        kept, insid = self.desktops[:2]
        self.cli("node", "no-new", "nc2")
        self.assertEqual(self.cli("node", "show", "nc2")["state"], "no_new")
        self.assertEqual(self.refused("vm", "run", insid).code, 7)
        why = self.cli("task", "why", insid)
        reasons = {one["host"]: one["reason"] for one in why["nodes"]}
        self.assertEqual(reasons["nc2"], "takes no new VMs (no_new)")
        self.assertIn("cpu: needs", reasons["nc1"])
        self.assertEqual(why["nearest_fix"], "nc2: educloud node enable nc2")
        self.assertEqual(self.vm(kept)["state"], "running")
        self.assertIn("before", self.guest(kept).notes(), "what runs runs on")
        self.cli("node", "enable", "nc2")
        self.assertEqual(self.cli.run(insid)["task"]["node"], "nc2")
        self.guest(insid)

    def test_51_drain(self):
        kept, other = self.desktops[:2]
        self.cli("node", "drain", "nc2")
        for insid in (kept, other):
            vm = self.wait_vm(insid, "stopped")
            self.assertEqual(vm["task"]["prompt"], "node nc2 is being drained: start it again and it runs elsewhere")
        self.assertEqual(self.on_node("nc2") - {self.nobody}, set())
        self.cli("vm", "delete", self.gate[2], "--wait")
        self.assertEqual(self.cli.run(kept)["task"]["node"], "nc1")
        self.assertNotIn("before", self.guest(kept).notes(), "freshly reverted, as at each start")
        self.assertEqual(self.refused("vm", "run", other).code, 7)
        self.cli("node", "enable", "nc2")
        self.assertEqual(self.cli.run(other)["task"]["node"], "nc2")
        self.guest(other)

    def test_60_nothing_of_nobodys_stays(self):
        log = [self.cloud.daemons["clc"].log, self.cloud.daemons["nc2"].log]
        wait_until(lambda: self.nobody not in self.on_node("nc2"), 180, "the VM that no book knows to be ended", log)
        self.report.append(f"{'':<50} {time.monotonic() - self.orphaned_at:6.1f} s from the restore until an unknown VM was ended")
        for vm in self.cli("vm", "list")["items"]:
            self.cli("vm", "delete", vm["insid"], "--wait")
        for name in ("nc1", "nc2"):
            folder = self.cloud.storage(name) / "VMs"
            wait_until(lambda f=folder: not list(f.glob("*")), 60, f"{folder} to be empty", log)
            self.assertEqual(self.on_node(name), set())
        database = self.cloud.dir / "state/clc/clc.sqlite"
        done = subprocess.run(["sqlite3", "-readonly", database, "SELECT COUNT(*) FROM ports"], capture_output=True, text=True,
                              timeout=30, check=True)
        self.assertEqual(done.stdout.strip(), "0", "all ports are given back")


if __name__ == "__main__":
    unittest.main()
