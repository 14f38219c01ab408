"""The table of faults: what may befall a cloud, how it is injected here, what must hold, and which tests show it.

docs/faults.md is made from it, tests/lint checks that each test named here exists, scripts/faults runs them. A test says how often
it injected a fault by a line `FAULT <row> <count>` (`injected` in tests/e2e/lab and in tests/support/fault.hpp). Names of tests:
    e2e/FILE:test_METHOD     tests/e2e/FILE, real daemons, broker, libvirt and guests on hosts made of namespaces
    PROGRAM:Suite.Name       one test of a test program (unit_*, integration_*)
    educloud-sim             all daemons in one process over a seeded broker and clock; a seed is a run
    bench/control:ROW < N    a row of scripts/bench control, and what it must be below
"""
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/faults.md"


@dataclasses.dataclass(frozen=True)
class Row:
    name: str      # what --only takes
    fault: str
    injected: str
    holds: str
    tests: tuple


ROWS = (
    Row("broker-killed", "the broker is killed",
        "kill -9 of RabbitMQ while thousands of messages are on their way, while a task is under way, and during an import",
        "nothing confirmed is lost, what comes twice counts once, tasks go on", (
            "integration_bus:FaultTest.NothingConfirmedIsLostWhenTheBrokerIsKilled",
            "integration_walrus:WalrusProcess.BrokerKilledInBetweenHearsOfTheEnd",
            "e2e/faults_test.py:test_30_broker_killed_in_the_middle_of_a_task",
            "educloud-sim")),
    Row("partition", "a silent partition",
        "the node's cable is pulled; the broker is stopped with its connections open (SIGSTOP)",
        "noticed in 15 s; the desktop runs elsewhere within 90 s; once healed nothing is there twice", (
            "integration_bus:FaultTest.ASilentPartitionIsNoticedAndHeals",
            "e2e/lost_test.py:test_10_cut_off",
            "educloud-sim")),
    Row("lossy-link", "loss in one direction, a slow link",
        "nft drops a third of what comes in at random, tbf leaves 300 kbit/s; then nothing leaves the node for 13 s",
        "no node is lost, no desktop starts elsewhere, commands still get through", (
            "e2e/broker_faults_test.py:test_20_a_lossy_slow_one_way_link_loses_no_node",)),
    Row("nc-stopped", "nc stopped past its lease, then resumed",
        "SIGSTOP of nc for longer than its lease, then SIGCONT",
        "the desktop begins again elsewhere, the old node ends its own, a server disk has one writer", (
            "e2e/lost_test.py:test_20_nc_stopped_past_its_lease",
            "unit_nc:LeaseTest.AServerEndsWithTheLeaseAndADesktopRunsOn",
            "unit_nc:LeaseTest.CommandsAreRefusedWithoutALease",
            "unit_nc_watchdog:WatchdogTest.EndsTheServerThatOutlivedItsLease",
            "educloud-sim")),
    Row("daemon-killed", "a daemon killed at each step",
        "kill -9 before or after the n-th sync or write to the broker; in the middle of a prepare and of a submit; of a writer and of "
        "an inbox again and again",
        "what was acknowledged is there, every task ends, nothing has its effect twice", (
            "e2e/host_faults_test.py:test_30_daemons_killed_at_any_commit_publish_or_ack",
            "e2e/faults_test.py:test_10_every_daemon_dies_in_the_middle_of_a_prepare",
            "e2e/faults_test.py:test_20_every_daemon_dies_in_the_middle_of_a_submit",
            "unit_clc_store:StoreTest.AKilledWriterLosesNothingItAcknowledged",
            "integration_inbox:InboxProcess.WhatWasAckedSurvivesKill9",
            "integration_cc:CcDaemonTest.KilledInTheMiddleItLosesNoCommand",
            "integration_walrus:WalrusProcess.KilledAnywhereKeepsWhatItAnswered",
            "educloud-sim")),
    Row("poison", "poison messages",
        "broken JSON, wrong types and 70 kB on every queue, forged senders",
        "dead-lettered at the first refusal, with the cause; neighbours are served", (
            "e2e/faults_test.py:test_60_poison_on_every_queue_is_dead_lettered_alone",
            "integration_clc_broker:ClcBrokerTest.PoisonForClcIsShownAfterItsFirstRefusal",
            "integration_cc:CcDaemonTest.ForgedAndMalformedMessagesAreDeadLettered")),
    Row("broker-alarm", "the broker's memory or disk alarm",
        "rabbitmqctl set_vm_memory_high_watermark to next to nothing, set_disk_free_limit to more than there is",
        "the API answers, the outbox grows, and drains after", (
            "e2e/broker_faults_test.py:test_30_the_api_answers_while_the_broker_is_out_of_memory_or_disk",
            "integration_bus:FaultTest.ABlockedBrokerStopsPublishingUntilItHasMemoryAgain",
            "educloud-sim")),
    Row("unroutable", "no queue is bound, or it is full",
        "bindings removed from each exchange in turn; a policy that lets a queue hold 3 messages",
        "the outbox row stays, log and metric say so, all is sent once it is mended", (
            "e2e/broker_faults_test.py:test_40_what_no_queue_takes_waits",
            "e2e/broker_faults_test.py:test_41_what_a_full_queue_refuses_waits",
            "integration_bus:PublishTest.IsReturnedWhenNoQueueIsBoundAndItsNeighboursAreNot",
            "integration_bus:PublishTest.FailsWhenTheQueueIsFullAndRejects",
            "educloud-sim")),
    Row("broker-wiped", "the broker's data is gone",
        "broker killed, its data erased, started from the definitions, with commands in its queues and a transfer under way",
        "comparison of book and nodes ends every task", (
            "e2e/broker_faults_test.py:test_50_a_wiped_broker_loses_no_task",
            "educloud-sim")),
    Row("reorder", "messages come twice and out of order",
        "a proxy before the broker publishes again what passed, late and in another order; ancient and forged statuses",
        "the final state is what the users asked for; replayed statuses are counted and dropped", (
            "e2e/broker_faults_test.py:test_10_replayed_and_reordered_messages_change_nothing",
            "integration_clc:Sanity.ReplayedReorderedForgedAndAncientStatusesAreCountedAndDropped",
            "integration_clc:Protocol.RandomConversationsLeaveNothingBehind",
            "educloud-sim")),
    Row("power-loss", "power cuts",
        "what clc's store, the inbox, the chunk store and a node's fill wrote is recorded; of what was not synced all or a random part is "
        "taken back, down to torn sectors",
        "nothing acknowledged is lost, nothing half is seen, databases are whole", (
            "integration_power:Power.WhatClcHasToldIsThereAfterACut",
            "integration_power:Power.WhatANodeHasAckedIsThereAfterACut",
            "integration_power:Power.FlushedChunksAreThereAfterACut",
            "integration_power:PowerStore.AMigrationThatIsCutGoesOnAndHasItsCopy",
            "integration_power:PowerStore.ABackupIsThereWholeOrNotAtAll",
            "integration_power:PowerStore.ARestoreThatIsCutLeavesTheOldOrTheNew",
            "integration_power:PowerFill.ACutFillGoesOnAndShowsNothingHalf",
            "unit_inbox:InboxTest.APowerCutThatTakesTheLastStatusDoesNotBringItsNumberBack",
            "unit_nc:InstanceRecordTest.AnEmptyRecordIsNoneForADesktopAndDamageForABuild",
            "educloud-sim")),
    Row("bad-disk", "no space, I/O errors",
        "small file systems filled to the last byte; a preloaded library that makes writes and syncs fail with EIO",
        "a clear refusal, nothing half to be seen, and it works once there is room", (
            "e2e/faults_test.py:test_40_disk_full_on_the_node",
            "e2e/faults_test.py:test_41_disk_full_on_walrus",
            "e2e/host_faults_test.py:test_10_io_errors_on_the_node_leave_no_half_image",
            "e2e/host_faults_test.py:test_11_io_errors_in_the_databases_lose_nothing",
            "integration_walrus:FullDisk.SubmitThatDoesNotFitIsRefusedAndTheStoreStaysSound",
            "integration_nc_cache:Failure.AFullDiskIsReportedAndLeavesNothing")),
    Row("clock-jump", "a clock jumps",
        "a preloaded library sets the time of day of nc and clc an hour forward and back",
        "leases, running desktops and deadlines of tasks are untouched", (
            "e2e/host_faults_test.py:test_20_clocks_that_jump_an_hour_touch_no_lease",
            "integration_clc:ClockJump.OfAnHourTouchesNoTaskNorHeartbeat",
            "integration_clc:Protocol.AClockThatJumpsTimesNothingOut",
            "educloud-sim")),
    Row("hypervisor", "libvirtd restarted, QEMU killed",
        "kill -9 of libvirtd and of guests, by pid",
        "guests live on without libvirtd and are adopted; a guest's end is seen in 30 s", (
            "e2e/faults_test.py:test_31_libvirtd_and_nc_die_and_the_guest_lives_on",
            "e2e/faults_test.py:test_32_a_guest_killed_from_outside_is_seen",
            "integration_nc:LibvirtGuest.GuestsOutliveLibvirtdAndAreAdopted",
            "integration_nc:LibvirtGuest.AKilledQemuIsToldAsCrash",
            "educloud-sim")),
    Row("host-rebooted", "a node or a cc is rebooted",
        "every process of the host ended at once, /run and its mounts gone; clc killed twice meanwhile",
        "folders, targets and relays come back by themselves; what is to start by itself runs again once, anything else says why not", (
            "e2e/reboot_test.py:test_10_what_starts_by_itself_and_what_does_not",
            "e2e/reboot_test.py:test_20_clc_is_killed_meanwhile_and_nothing_happens_twice",
            "e2e/reboot_test.py:test_50_the_cc_is_rebooted",
            "educloud-sim")),
    Row("two-clc", "two clc on one database",
        "a second process opens the database",
        "it refuses and says why; the first is not disturbed", (
            "e2e/host_faults_test.py:test_40_a_second_clc_on_the_same_database_refuses",
            "unit_clc_store:StoreTest.RefusesASecondInstance")),
    Row("transfer-cut", "a transfer is cut at half",
        "kill -9 of nc, cc and walrus while bytes move; neighbours and stores that lie",
        "it goes on where it was, digests are checked, nothing partial is seen", (
            "e2e/images_test.py:test_10_import_of_a_disk_with_more_in_it",  # which the next one moves
            "e2e/images_test.py:test_40_a_node_killed_at_half_goes_on_there",
            "e2e/faults_test.py:test_10_every_daemon_dies_in_the_middle_of_a_prepare",
            "e2e/faults_test.py:test_20_every_daemon_dies_in_the_middle_of_a_submit",
            "integration_nc_cache:Kill.AKilledFillFetchesOnlyWhatIsMissing",
            "integration_nc_cache:Failure.WrongDigestsAndLyingManifestsAreRefused",
            "integration_walrus:WalrusProcess.KilledWhileReceivingCompletes",
            "integration_cc:RelayTest.WalrusMayBeKilledInTheMiddle")),
    Row("many-nodes", "many nodes",
        "200 simulated nodes with the real broker, 200 desktops at once",
        "99 of 100 statuses are with the clients within a second", (
            "bench/control:status_p99_200 < 1",)),
)

# What educloud-sim calls its faults, and the row each belongs to.
SIMULATED = {"crash": "daemon-killed", "reboot": "host-rebooted", "broker": "broker-killed", "wipe": "broker-wiped",
             "block": "broker-alarm", "cut": "partition", "unbind": "unroutable", "guest": "hypervisor", "clock": "clock-jump",
             "pause": "nc-stopped", "duplicate": "reorder", "reorder": "reorder"}

_HEAD = """# Faults, and what holds

Made from `tests/faults/table.py`, which `scripts/faults` runs row by row on real RabbitMQ, SQLite, libvirt and network namespaces (`--only ROW`,
`--json`): it prints how often each fault was injected and whether everything held. `educloud-sim` runs all daemons in one process over a
seeded broker and clock, a thousand seeds of random faults here and ten thousand in `scripts/test sim`.

| Row | Fault | Injected by | What holds | Shown by |
|---|---|---|---|---|
"""


def markdown():
    """docs/faults.md as it has to be."""
    lines = []
    for row in ROWS:
        shown = "<br>".join(f"`{test}`" for test in row.tests)
        lines.append(f"| `{row.name}` | {row.fault} | {row.injected} | {row.holds} | {shown} |\n")
    return _HEAD + "".join(lines)


def folder_of(program):
    """The folder of a test program's sources; None if there is no such program."""
    for path in sorted(ROOT.glob("tests/*/*/CMakeLists.txt")):
        if re.search(rf"educloud_test\({re.escape(program)}\s", path.read_text()):
            return path.parent
    return None


def _sources(test):
    """The texts in which `test` is written and may count; None if it does not exist."""
    if test.startswith("e2e/"):
        name, _, method = test.partition(":")
        path = ROOT / "tests" / name
        text = path.read_text() if path.exists() else ""
        return text if f"def {method}(self" in text else None
    program, _, name = test.partition(":")
    folder = folder_of(program)
    suite, _, case = name.partition(".")
    texts = [] if folder is None else [p.read_text() for p in sorted(folder.iterdir()) if p.suffix in (".cpp", ".hpp")]
    declared = re.compile(rf"\bTEST(_F|_P)?\(\s*{re.escape(suite)},\s*{re.escape(case)}\)")
    return "\n".join(texts) if any(declared.search(text) for text in texts) else None


def problems():
    """What is wrong with the table: tests that do not exist, rows that nothing counts."""
    found = [f"{name}: twice" for name in {row.name for row in ROWS if [r.name for r in ROWS].count(row.name) > 1}]
    for row in ROWS:
        counted = False
        for test in row.tests:
            if test == "educloud-sim":
                counted = counted or row.name in SIMULATED.values()
            elif test.startswith("bench/control:"):
                name = test.partition(":")[2].split(" < ")[0]
                counted = True
                if f'"{name}"' not in (ROOT / "bench/control/rows.py").read_text():
                    found.append(f"{row.name}: no benchmark {name}")
            else:
                text = _sources(test)
                if text is None:
                    found.append(f"{row.name}: no test {test}")
                counted = counted or f'injected("{row.name}"' in (text or "")
        if not counted:
            found.append(f"{row.name}: none of its tests says how often it injected it")
    return found
