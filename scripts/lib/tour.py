#!/usr/bin/python3
"""The tour of quickstart --check: every flow once, through the command line, on the running cloud.

Prints each step with its seconds. Exit 0 only if every step was true. What it made it deletes again."""
import argparse
import pathlib
import secrets
import subprocess
import sys
import time

from cloud_cli import Cli, Guest, wait_until


class Tour:
    def __init__(self, arguments):
        self.cli = Cli.local(arguments.educloud)
        self.arguments = arguments
        self.tag = secrets.token_hex(3)
        self.vms, self.images = [], []
        self.failures = 0

    def step(self, what, action):
        began = time.monotonic()
        try:
            note = action() or ""
            verdict = "ok"
        except Exception as problem:  # one broken step is reported, the next may still be told about
            note, verdict = str(problem), "FAILED"
            self.failures += 1
        print(f"{what:<52} {verdict:<6} {time.monotonic() - began:6.1f} s  {note}", flush=True)
        return verdict == "ok"

    def guest(self, insid):
        return Guest(self.cli("vm", "show", insid)["web_url"]).wait_ready()

    def import_image(self):
        self.image = self.cli.import_image(self.arguments.image_file, f"tour-{self.tag}")
        self.images.append(self.image)
        return self.image

    def run_desktop(self):
        self.desktop = self.cli.define(self.image, f"tour-{self.tag}")
        self.vms.append(self.desktop)
        self.cli.run(self.desktop)
        guest = self.guest(self.desktop)
        guest.add_note("scribble")
        assert "scribble" in guest.notes()
        guest.write("d", f"tour-{self.tag}", "homework")
        return self.desktop

    def see_it(self):
        shot = pathlib.Path(f"/tmp/educloud-tour-{self.tag}.png")
        try:
            self.cli.raw("vm", "screenshot", self.desktop, "-o", shot)
            assert shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG"
        finally:
            shot.unlink(missing_ok=True)
        assert "sample guest ready" in self.cli.raw("vm", "console", self.desktop)

    def restart_reverts(self):
        self.cli.stop(self.desktop)
        self.cli.run(self.desktop)
        guest = self.guest(self.desktop)
        assert "scribble" not in guest.notes(), "the overlay was not reverted"
        assert guest.read("d", f"tour-{self.tag}") == "homework", "the user's folder was not kept"
        self.cli.stop(self.desktop)

    def edit(self, verb, text, *options):
        """A MODIFY or BUILD: change the running system, stop, submit. Returns the target image's id."""
        task = self.cli("image", verb, self.image, *options, "--memory-mib", 160, "--wait", "--timeout", 300)
        tid = task["tid"]
        insid = tid.split(":")[2]
        self.guest(insid).add_note(text)
        self.cli.stop(insid)
        self.cli.submit(tid)
        return tid.split(":")[1]

    def modify(self):
        assert self.edit("modify", "modified") == self.image
        assert self.cli.versions(self.image) == [1, 2] and self.cli.current_version(self.image) == 2
        return "version 2"

    def modified_desktop(self):
        self.cli.run(self.desktop)
        assert "modified" in self.guest(self.desktop).notes(), "version 2 does not hold the change"
        self.cli.stop(self.desktop)

    def build(self):
        self.built = self.edit("build", "built", "--name", f"tour-{self.tag}-built")
        self.images.append(self.built)
        assert self.built != self.image and self.cli.versions(self.built) == [1]
        return self.built

    def built_desktop(self):
        insid = self.cli.define(self.built, f"tour-{self.tag}-built")
        self.cli.run(insid)
        notes = self.guest(insid).notes()
        assert "built" in notes and "modified" in notes, notes
        self.cli("vm", "delete", insid, "--wait")

    def server(self):
        self.cli("image", "set", self.built, "--usage", "server", "--database-gib", 1, "--wait")
        insid = self.cli("vm", "define", "--image", self.built, "--server", "--name", f"tour-{self.tag}-server",
                         "--memory-mib", 160)["insid"]
        self.vms.append(insid)
        self.cli.run(insid)
        self.guest(insid).write("d", "row", "kept")
        self.cli.stop(insid)
        self.cli.run(insid)
        assert self.guest(insid).read("d", "row") == "kept", "the server's disk was not kept"
        self.cli.stop(insid)

    def roll_back(self):
        self.cli("image", "rollback", self.image, "--to", 1, "--wait")
        assert self.cli.current_version(self.image) == 1
        self.cli.run(self.desktop)
        assert "modified" not in self.guest(self.desktop).notes(), "still version 2"
        self.cli.stop(self.desktop)

    def prune(self):
        self.cli("image", "prune", self.image, "--versions", 2, "--wait")
        assert self.cli.versions(self.image) == [1]

    def queues(self):
        run = [self.arguments.broker, "ctl", self.arguments.broker_dir, "-q", "list_queues", "name", "messages", "consumers"]
        lines = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout
        for name in ("nc_cmd_queue.nc1", "cc_cmd_queue.cc1", "walrus_cmd_queue", "cc_status_queue", "clc_status_queue",
                     "cc_heartbeat_queue", "clc_heartbeat_queue", "dead_letter_queue", "console_tap_queue"):
            assert name in lines, f"no queue {name}:\n{lines}"
        dead = len(self.cli("dead-letter", "list")["items"])
        return f"{len(lines.splitlines())} queues, {dead} dead letters"

    def metrics(self):
        found = sorted(p.name for p in pathlib.Path(self.arguments.storage).rglob("*.prom"))
        assert found == ["cc.prom", "clc.prom", "nc.prom", "walrus.prom"], found

    def clean_up(self):
        for insid in self.vms:
            self.cli("vm", "delete", insid, "--wait")
        for imgid in self.images:
            self.cli("image", "delete", imgid, "--wait")
        wait_until(lambda: not any(i["name"].startswith(f"tour-{self.tag}") for i in self.cli("image", "list")["items"]),
                   60, "the tour's images to go")

    def run(self):
        steps = [("import the sample image", self.import_image), ("run a desktop, write to its disk", self.run_desktop),
                 ("screenshot and console log", self.see_it), ("restart: c: is reverted, d: is kept", self.restart_reverts),
                 ("MODIFY: run, change, stop, submit", self.modify), ("the desktop has the new version", self.modified_desktop),
                 ("BUILD: run, change, stop, submit", self.build), ("a desktop of the built image", self.built_desktop),
                 ("a server of it, whose disk d: is kept", self.server),
                 ("roll back to version 1", self.roll_back), ("prune version 2", self.prune),
                 ("queues in the broker", self.queues), ("metrics files", self.metrics), ("delete what was made", self.clean_up)]
        began = time.monotonic()
        for what, action in steps:
            if not self.step(what, action) and action == self.import_image:
                break
        print(f"{'tour':<52} {'FAILED' if self.failures else 'ok':<6} {time.monotonic() - began:6.1f} s", flush=True)
        return 1 if self.failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("educloud", "image-file", "broker", "broker-dir", "storage"):
        parser.add_argument(f"--{name}", required=True)
    return Tour(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
