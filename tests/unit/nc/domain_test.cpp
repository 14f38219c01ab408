#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/ids.hpp"
#include "nc/app/config.hpp"
#include "nc/app/heartbeat.hpp"
#include "nc/domain/paths.hpp"
#include "nc/domain/task_queue.hpp"
#include "nc/domain/vm_spec.hpp"
#include "nc/hypervisor/domain_xml.hpp"
#include "nc/hypervisor/png.hpp"
#include "support/paths.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const TaskId kRunTask = *TaskId::parse("IMG00000001:IMG00000001:VD0000beef");
const TaskId kBuildTask = *TaskId::parse("IMG00000001:IMG00000002:TMP0000beef");
const NodeLimits kLimits{
    .max_memory_mib = 4096, .max_cpus = 4, .advertise = "10.0.0.5", .guest_egress = false};

msg::Command run_command() {
  msg::Command command;
  command.op = "image/run";
  command.tid = kRunTask.str();
  command.cmdid = new_command_id().str();
  auto& option = command.runtime_option.emplace();
  option.memory_mib = 512;
  option.cpus = 2;
  option.rdp_port = 5901;
  option.web_port = 8081;
  option.display_password = "secret12";
  option.disks = {{"images/IMG00000001/machine", "multiattach"}};
  return command;
}

Result<VmSpec> spec_of(const msg::Command& command, const TaskId& tid = kRunTask) {
  return make_spec(command, tid, Layout("/storage"), kLimits);
}

TEST(VmSpecRules, MakesASpecOfARunCommand) {
  auto spec = spec_of(run_command());
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->memory_mib, 512);
  EXPECT_EQ(spec->display_address, "10.0.0.5");
  EXPECT_EQ(spec->mac, "52:54:00:00:be:ef");
  EXPECT_EQ(spec->console_log, "/storage/VMs/VD0000beef/console.log");
}

TEST(VmSpecRules, RefusesWhatTheNodeCannotOrMayNotDo) {
  const auto refused = [](auto change, const char* key, ErrorCode code = ErrorCode::invalid_argument) {
    auto command = run_command();
    change(*command.runtime_option);
    auto spec = spec_of(command);
    ASSERT_FALSE(spec) << key;
    EXPECT_EQ(spec.error().code, code) << spec.error().message;
    EXPECT_EQ(spec.error().key, key);
  };
  refused([](auto& o) { o.memory_mib = 5000; }, "runtime_option.memory_mib", ErrorCode::exhausted);
  refused([](auto& o) { o.cpus = 5; }, "runtime_option.cpus", ErrorCode::exhausted);
  refused([](auto& o) { o.rdp_port = 80; }, "runtime_option.rdp_port");
  refused([](auto& o) { o.web_port = 80; }, "runtime_option.web_port");
  refused([](auto& o) { o.web_port = o.rdp_port; }, "runtime_option.web_port");
  refused([](auto& o) { o.display_password.clear(); }, "runtime_option.display_password");
  refused([](auto& o) { o.display_password = "a b"; }, "runtime_option.display_password");
  refused([](auto& o) { o.disks[0].file = "images/IMG00000002/machine"; }, "runtime_option.disks");
  refused([](auto& o) { o.disks[0].file = "tmp/images/IMG00000001/machine"; }, "runtime_option.disks");
  refused(
      [](auto& o) {
        o.networkcards = {{"virtio", "01:00:00:00:00:00", ""}};
      },
      "runtime_option.networkcards[0].nic_mac");
  refused(
      [](auto& o) {
        o.networkcards = {{"virtio", "52:54:00:00:00:0\"", ""}};
      },
      "runtime_option.networkcards[0].nic_mac");
}

TEST(VmSpecRules, WithoutOptionsItSaysSo) {
  auto command = run_command();
  command.runtime_option.reset();
  EXPECT_EQ(spec_of(command).error().key, "runtime_option");
}

TEST(DomainXml, SaysWhatMatters) {
  auto spec = *spec_of(run_command());
  spec.disk = {{"/storage/VMs/VD0000beef/overlay.qcow2", "qcow2"},
               {"/storage/images/IMG00000001/versions/1/machine", "qcow2"}};
  const auto xml = domain_xml(spec, {});
  EXPECT_THAT(xml, HasSubstr("type=\"qemu\""));
  EXPECT_THAT(xml, HasSubstr("detect_zeroes=\"unmap\""));
  EXPECT_THAT(xml, HasSubstr("<backingStore />"));  // the chain ends here, nothing is probed
  EXPECT_THAT(xml, HasSubstr("restrict=on,hostfwd=tcp:10.0.0.5:8081-:80"));
  EXPECT_THAT(xml, HasSubstr("org.qemu.guest_agent.0"));
  EXPECT_THAT(xml, HasSubstr("<on_poweroff>destroy"));
  EXPECT_THAT(xml, Not(HasSubstr("hostdev")));
  EXPECT_THAT(xml, Not(HasSubstr("seclabel")));
  EXPECT_THAT(domain_xml(spec, {.kvm = true}), HasSubstr("host-passthrough"));
  auto task = task_of_domain(xml);
  ASSERT_TRUE(task);
  EXPECT_EQ(task->tid, kRunTask.str());
  EXPECT_EQ(task->cmdid, spec.cmdid);
}

TEST(DomainXml, LimitsAndTheSeedAreInIt) {
  auto command = run_command();
  command.runtime_option->limits = msg::Limits{.cpu_percent = 50, .cpu_weight = 50, .disk_iops = 200};
  auto spec = *spec_of(command);
  spec.disk = {{"/storage/VMs/VD0000beef/overlay.qcow2", "qcow2"}};
  spec.seed = "/storage/VMs/VD0000beef/seed.img";
  const auto xml = domain_xml(spec, {});
  EXPECT_THAT(xml, HasSubstr("<shares>512</shares>"));
  EXPECT_THAT(xml, HasSubstr("<period>100000</period>"));
  EXPECT_THAT(xml, HasSubstr("<total_iops_sec>200</total_iops_sec>"));
  EXPECT_THAT(xml, Not(HasSubstr("total_bytes_sec")));
  EXPECT_THAT(xml, HasSubstr("<target dev=\"vdz\" bus=\"virtio\" />\n   <readonly />"));
  EXPECT_THAT(domain_xml(spec, {.cgroup2 = true}), HasSubstr("<shares>50</shares>"));
  EXPECT_EQ(written_disks(xml), std::vector<std::string>{"vda"});
}

TEST(DomainXml, AnImageThatStillArrivesIsReadOverItsSocket) {
  auto spec = *spec_of(run_command());
  spec.disk = {{"/storage/VMs/VD0000beef/overlay.qcow2", "qcow2"},
               {"/storage/VMs/VD0000beef/disk.nbd", "raw", true}};
  const auto xml = domain_xml(spec, {});
  EXPECT_THAT(xml, HasSubstr("<backingStore type=\"network\">"));
  EXPECT_THAT(xml, HasSubstr("<source protocol=\"nbd\" name=\"disk\">"));
  EXPECT_THAT(xml, HasSubstr("socket=\"/storage/VMs/VD0000beef/disk.nbd\""));
  EXPECT_THAT(xml, HasSubstr("<reconnect delay="));
}

TEST(DomainXml, TextsCannotBreakOut) {
  auto spec = *spec_of(run_command());
  spec.disk = {{"/x", "raw"}};
  spec.display_password = "<&\"'>";
  EXPECT_THAT(domain_xml(spec, {}), HasSubstr("passwd=\"&lt;&amp;&quot;"));
}

TEST(DomainXml, AForeignDomainIsNotOurs) {
  EXPECT_EQ(task_of_domain("<domain><name>x</name></domain>").error().code, ErrorCode::not_found);
  EXPECT_EQ(task_of_domain("<domain").error().code, ErrorCode::corrupt);
}

TEST(Png, PassesPngOnAndConvertsPpm) {
  EXPECT_EQ(*to_png("\x89PNG\r\n\x1a\nrest"), "\x89PNG\r\n\x1a\nrest");
  auto png = to_png("P6\n# comment\n2 2\n255\n" + std::string(12, 'x'));
  ASSERT_TRUE(png) << png.error().message;
  EXPECT_TRUE(png->starts_with("\x89PNG"));
  EXPECT_THAT(*png, HasSubstr("IEND\xae\x42\x60\x82"));
  for (const char* bad :
       {"", "P6", "P6\n2 2\n255\nshort", "P6\n99999 1\n255\n", "P5\n1 1\n255\nx", "P6 #", "P6\n#"}) {
    EXPECT_FALSE(to_png(bad)) << bad;
  }
}

msg::Command queued(const std::string& op, const std::string& tid) {
  msg::Command command;
  command.op = op;
  command.tid = tid;
  return command;
}

TEST(TaskQueue, RunsOneJobPerTaskAndTheNewestWins) {
  TaskQueue queue;
  ASSERT_TRUE(queue.push({queued("image/prepare", "a")}));
  auto first = queue.next(Lane::copies);
  ASSERT_TRUE(first);
  EXPECT_FALSE(queue.next(Lane::copies));
  ASSERT_TRUE(queue.push({queued("image/run", "a")}));
  EXPECT_TRUE(first->stop.stop_requested());
  ASSERT_TRUE(queue.push({queued("task/delete", "a")}));
  EXPECT_FALSE(queue.next(Lane::machines));  // the first still runs
  queue.finish("a");
  auto second = queue.next(Lane::machines);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->job.command.op, "task/delete");
  EXPECT_FALSE(second->stop.stop_requested());
  queue.finish("a");
  EXPECT_EQ(queue.size(), 0u);
}

TEST(TaskQueue, WhatNobodyWaitsForHasALaneOfItsOwn) {
  TaskQueue queue;
  auto push = queued("image/prepare", "a");
  push.priority = "prefetch";
  ASSERT_TRUE(queue.push({push}));
  EXPECT_FALSE(queue.next(Lane::copies));
  EXPECT_TRUE(queue.next(Lane::background));
}

TEST(TaskQueue, WhatIsPutOffKeepsNobodyWaiting) {
  const auto now = std::chrono::steady_clock::now();
  TaskQueue queue;
  for (const auto* tid : {"a", "b"}) {
    Job job{queued("image/stop", tid)};
    job.gives_back = true;
    ASSERT_TRUE(queue.push(job));
  }
  auto first = queue.next(Lane::returns, now);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->job.command.tid, "a");
  first->job.not_before = now + std::chrono::seconds{5};
  queue.finish("a", first->job);
  EXPECT_EQ(queue.next(Lane::returns, now)->job.command.tid, "b");
  EXPECT_FALSE(queue.next(Lane::returns, now + std::chrono::seconds{4}));
  EXPECT_EQ(queue.next(Lane::returns, now + std::chrono::seconds{5})->job.command.tid, "a");
}

TEST(TaskQueue, LanesAndTasksDoNotWaitForEachOther) {
  TaskQueue queue(2);
  ASSERT_TRUE(queue.push({queued("image/submit", "a")}));
  ASSERT_TRUE(queue.push({queued("image/stop", "b")}));
  EXPECT_EQ(queue.push({queued("image/stop", "c")}).error().code, ErrorCode::exhausted);
  EXPECT_EQ(queue.next(Lane::machines)->job.command.tid, "b");
  EXPECT_EQ(queue.next(Lane::copies)->job.command.tid, "a");
  // What happened to a VM is no reason to interrupt a command.
  Job ended{queued("image/run", "a"), true};
  ASSERT_TRUE(queue.push(ended));
  queue.finish("a");
  EXPECT_FALSE(queue.next(Lane::machines));
  auto running = queue.next(Lane::copies);
  queue.close();
  EXPECT_FALSE(queue.is_busy("a"));
}

TEST(Console, IsCutAndReadWithItsPast) {
  char pattern[] = "/tmp/educloud-console-XXXXXX";
  const std::filesystem::path folder = mkdtemp(pattern);
  const auto file = folder / "console.log";
  EXPECT_EQ(read_console(file, 100).error().code, ErrorCode::not_found);
  FILE* log = fopen(file.c_str(), "a");
  fputs(std::string(4000, 'a').c_str(), log);
  fflush(log);
  ASSERT_TRUE(cut_console(file, 5000));
  EXPECT_EQ(std::filesystem::file_size(file), 4000u);
  ASSERT_TRUE(cut_console(file, 1000));
  EXPECT_EQ(std::filesystem::file_size(file), 0u);
  fputs("new", log);
  fclose(log);
  EXPECT_EQ(*read_console(file, 5), "aanew");
  EXPECT_EQ(*read_console(file, 2), "ew");
  std::filesystem::remove_all(folder);
}

TEST(Config, TheExampleIsValidAndAWrongKeyIsNamed) {
  auto config = load_config(test::source_dir() / "config/nc.conf");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->queue(), "nc_cmd_queue.nc1");
  EXPECT_EQ(config->task_key(), "taskstatus.nc-nc1");
  EXPECT_EQ(config->common.port, 8003);
  EXPECT_TRUE(config->peers);
  EXPECT_EQ(config->max_transfers, 2);
}

}  // namespace
}  // namespace educloud::nc
