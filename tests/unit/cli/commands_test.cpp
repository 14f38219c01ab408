#include <gmock/gmock.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <sstream>

#include "cli/commands/context.hpp"
#include "cli/commands/limits.hpp"
#include "cli/commands/plan.hpp"
#include "cli/commands/program.hpp"
#include "cli/commands/roll.hpp"
#include "cli/commands/roll_vms.hpp"
#include "cli/commands/upload_target.hpp"
#include "cli/commands/vm_set.hpp"
#include "cli/commands/vm_view.hpp"
#include "cli/commands/wait.hpp"
#include "support/paths.hpp"

namespace educloud::cli {
namespace {

using nlohmann::json;

/// Every leaf command as "image import", with its long options.
void collect(const CLI::App& app, const std::string& path,
             std::map<std::string, std::vector<std::string>>& out) {
  const auto subcommands = app.get_subcommands([](const CLI::App*) { return true; });
  for (const auto* one : subcommands)
    collect(*one, path.empty() ? one->get_name() : path + " " + one->get_name(), out);
  if (!subcommands.empty()) return;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) out[path].push_back("--" + name);
  }
}

std::map<std::string, std::vector<std::string>> commands() {
  Context context;
  auto app = make_app(context);
  std::map<std::string, std::vector<std::string>> out;
  collect(*app, "", out);
  return out;
}

std::string file(const char* name) {
  std::ifstream stream(test::source_dir() / name);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

TEST(Commands, AreThoseThatAreDocumented) {
  std::vector<std::string> names;
  for (const auto& [name, options] : commands()) names.push_back(name);
  EXPECT_THAT(
      names, testing::UnorderedElementsAre(
                 "init", "login", "logout", "status", "node list", "node show", "node enable", "node no-new",
                 "node drain", "node roll", "cluster list", "cluster set", "plan", "dead-letter list",
                 "dead-letter show", "dead-letter retry", "dead-letter drop", "backup", "restore", "task why",
                 "image import", "image list", "image set", "image show", "image build", "image modify",
                 "image submit", "image versions", "image rollback", "image prune", "image delete",
                 "image push", "image export", "image url", "image diff", "image compact", "walrus fsck",
                 "walrus export", "walrus gc", "walrus stats", "vm define", "vm run", "vm stop", "vm pause",
                 "vm resume", "vm restart", "vm migrate", "vm limit", "vm snapshot take", "vm snapshot list",
                 "vm snapshot restore", "vm snapshot delete", "vmtype list", "vmtype set", "vmtype delete",
                 "ostype list", "ostype set", "ostype delete", "vm delete", "vm set", "vm list", "vm show",
                 "vm console", "vm screenshot", "task list", "task show", "task watch", "task cancel",
                 "task submit", "task start", "task stop"));
}

TEST(Roll, KnowsARestartFromAnEarlierStart) {
  const json before = {{"alive", true}, {"started_at", 5}, {"booted_at", 3}};
  EXPECT_FALSE(has_restarted(before, before, false));
  EXPECT_TRUE(has_restarted(before, {{"alive", true}, {"started_at", 6}, {"booted_at", 3}}, false));
  EXPECT_FALSE(has_restarted(before, {{"alive", true}, {"started_at", 6}, {"booted_at", 3}}, true));
  EXPECT_TRUE(has_restarted(before, {{"alive", true}, {"started_at", 6}, {"booted_at", 4}}, true));
  EXPECT_FALSE(has_restarted(before, {{"alive", false}, {"started_at", 6}, {"booted_at", 4}}, true));
}

TEST(Roll, MissesWhatRanBefore) {
  const json before = {{"vms",
                        {{{"insid", "VD1"}, {"state", "running"}},
                         {{"insid", "VD2"}, {"state", "paused"}},
                         {{"insid", "VD3"}, {"state", "shutoff"}}}}};
  EXPECT_THAT(vms_of(before), testing::ElementsAre("VD1", "VD2"));
  EXPECT_THAT(missing_vms(before, {{"vms", {{{"insid", "VD2"}, {"state", "running"}}}}}),
              testing::ElementsAre("VD1"));
  EXPECT_THAT(missing_vms(before, before), testing::IsEmpty());
  EXPECT_THAT(missing_vms(before, json::object()), testing::ElementsAre("VD1", "VD2"));
}

TEST(Roll, KnowsWhatTheDrainStopped) {
  const auto vm = [](const char* insid, const char* state, const char* node, std::int64_t stops_at) {
    return json{{"insid", insid},
                {"name", std::string("n") + insid},
                {"state", state},
                {"task", {{"node", node}, {"stops_at", stops_at}}}};
  };
  const json before = {vm("VD1", "running", "nc1", 0),
                       vm("VD2", "stopped", "nc1", 5),
                       vm("VD3", "running", "nc2", 0),
                       vm("VS4", "migrating", "nc1", 0),
                       {{"insid", "VD5"}, {"state", "defined"}, {"task", nullptr}}};
  const auto at_work = at_work_on(before, "nc1");
  EXPECT_THAT(at_work, testing::ElementsAre("VD1", "VS4"));
  const json after = {vm("VD1", "stopped", "nc1", 9), vm("VD2", "stopped", "nc1", 5),
                      vm("VS4", "running", "nc2", 0)};
  EXPECT_THAT(stopped_by_drain(after, "nc1", at_work), testing::ElementsAre(testing::Pair("VD1", "nVD1")))
      << "one that was stopped some other day stays so";
  EXPECT_THAT(stopped_by_drain(before, "nc1", at_work), testing::IsEmpty());
  EXPECT_THAT(at_work_on(json::array({1, "x", nullptr}), "nc1"), testing::IsEmpty());
}

TEST(Roll, DoesNotWaitForWhatItsUserHasEnded) {
  const auto vm = [](const char* phase, const char* state, int failed, const char* node) {
    return json{{"task", {{"phase", phase}, {"state", state}, {"failed", failed}, {"node", node}}}};
  };
  EXPECT_TRUE(is_awaited(vm("editing", "running", 0, "nc1"), "nc1"));
  EXPECT_TRUE(is_awaited(vm("editing", "stopping", 0, "nc1"), "nc1"));
  EXPECT_TRUE(is_awaited(vm("editing", "stopped", 1, "nc1"), "nc1")) << "nobody asked for that";
  EXPECT_FALSE(is_awaited(vm("editing", "stopped", 0, "nc1"), "nc1"));
  EXPECT_FALSE(is_awaited(vm("editing", "running", 0, "nc2"), "nc1")) << "it has moved";
  EXPECT_FALSE(is_awaited(vm("submitting", "init", 0, "nc1"), "nc1"));
  EXPECT_FALSE(is_awaited({{"task", nullptr}}, "nc1"));
}

TEST(Commands, StandInCompletionAndManualWithEveryOption) {
  const std::string completion = file("packaging/completion/educloud.bash");
  const std::string manual = file("docs/cli.md");
  for (const auto& [name, options] : commands()) {
    EXPECT_NE(manual.find("`educloud " + name), std::string::npos) << "docs/cli.md lacks " << name;
    const auto at = completion.find("[" + name + "]=");
    ASSERT_NE(at, std::string::npos) << "the completion lacks " << name;
    const std::string line = completion.substr(at, completion.find('\n', at) - at);
    for (const auto& option : options) {
      if (option == "--help") continue;
      EXPECT_NE((line + " ").find(option), std::string::npos)
          << "the completion of " << name << " lacks " << option;
    }
  }
}

int run(std::vector<const char*> words) {
  words.insert(words.begin(), "educloud");
  return run_program(static_cast<int>(words.size()), words.data());
}

TEST(Program, TellsWrongUsageByItsExitCode) {
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  EXPECT_EQ(run({}), 2);
  EXPECT_EQ(run({"frobnicate"}), 2);
  EXPECT_EQ(run({"vm", "run"}), 2);
  EXPECT_EQ(run({"vm", "define", "--image", "IMG00000000", "--cpus", "-3"}), 2);
  EXPECT_EQ(run({"vm", "define", "--image", "IMG00000000", "--password-file", "x"}), 2) << "whose?";
  EXPECT_EQ(run({"vm", "define", "--image", "IMG00000000", "--server", "--temporary"}), 2);
  EXPECT_EQ(run({"vm", "define", "--image", "IMG00000000", "--temporary", "--autostart"}), 2);
  EXPECT_EQ(run({"vm", "define", "--image", "IMG00000000", "--folders", "nfs"}), 2);
  EXPECT_EQ(run({"vm", "set", "VD01234567", "--folders", "nfs"}), 2);
  EXPECT_EQ(run({"vm", "set", "VD01234567", "--memory-mib", "0"}), 2);
  EXPECT_EQ(run({"vm", "set", "--node", "any"}), 2);
  EXPECT_EQ(run({"cluster", "set", "cc1"}), 2);
  EXPECT_EQ(run({"cluster", "set", "cc1", "--database-mode", "ftp"}), 2);
  EXPECT_EQ(run({"image", "set", "IMG00000000", "--database-gib", "5"}), 2) << "of a server only";
  EXPECT_EQ(run({"vm", "limit", "VD01234567", "--cpu-percent", "-1"}), 2);
  EXPECT_EQ(run({"vm", "snapshot", "restore", "VD01234567"}), 2);
  EXPECT_EQ(run({"vmtype", "set", "lab", "--cpus", "0"}), 2);
  EXPECT_EQ(run({"image", "import", "disk.raw", "--name", "x", "--database-gib", "5"}), 2)
      << "of a server only";
  EXPECT_EQ(run({"ostype", "set", "bsd", "--disk", "floppy", "--nic", "e1000"}), 2);
  EXPECT_EQ(run({"init", "--host", "../x", "--cluster", "cc1"}), 2);
  EXPECT_EQ(run({"--help"}), 0);
  EXPECT_EQ(run({"--version"}), 0);
  testing::internal::GetCapturedStderr();
  EXPECT_NE(testing::internal::GetCapturedStdout().find("Exit codes"), std::string::npos);
}

TEST(Program, WithoutALoginSaysSo) {
  ::setenv("EDUCLOUD_TOKEN_FILE", "/nonexistent/credentials", 1);
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  EXPECT_EQ(run({"status", "--json"}), 3);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("educloud login"), std::string::npos);
  const auto document = json::parse(testing::internal::GetCapturedStdout());
  EXPECT_EQ(document["error"]["code"], "unauthenticated");
  ::unsetenv("EDUCLOUD_TOKEN_FILE");
}

json task(const char* phase, const char* state, bool failed = false, bool achieved = false) {
  return {{"phase", phase}, {"state", state}, {"failed", failed ? 1 : 0}, {"done", achieved ? 1 : 0}};
}

TEST(Judge, KnowsWhenAVmRuns) {
  EXPECT_EQ(judge(task("preparing", "downloading"), Goal::running), Standing::under_way);
  EXPECT_EQ(judge(task("editing", "running"), Goal::running), Standing::reached);
  EXPECT_EQ(judge(task("preparing", "init", true), Goal::running), Standing::failed);
  EXPECT_EQ(judge(task("editing", "stopped"), Goal::running), Standing::failed);
  EXPECT_EQ(judge(task("editing", "deleting"), Goal::running), Standing::failed);
}

TEST(Judge, KnowsWhenItHasStopped) {
  EXPECT_EQ(judge(task("editing", "running"), Goal::stopped), Standing::under_way);
  EXPECT_EQ(judge(task("editing", "stopped"), Goal::stopped), Standing::reached);
  EXPECT_EQ(judge(task("editing", "stopped", true), Goal::stopped), Standing::reached);
  EXPECT_EQ(judge(task("submitting", "gone"), Goal::stopped), Standing::reached);
}

TEST(Judge, KnowsHowATaskEnded) {
  EXPECT_EQ(judge(task("submitting", "uploading"), Goal::ended), Standing::under_way);
  EXPECT_EQ(judge(task("submitting", "done", true), Goal::ended), Standing::under_way)
      << "tidied up again later";
  EXPECT_EQ(judge(task("submitting", "init", true), Goal::ended), Standing::failed);
  EXPECT_EQ(judge(task("submitting", "gone", false, true), Goal::ended), Standing::reached);
  EXPECT_EQ(judge(task("submitting", "gone"), Goal::ended), Standing::failed) << "cancelled";
  EXPECT_EQ(judge(task("submitting", "gone"), Goal::gone), Standing::reached);
}

TEST(Judge, KnowsWhenAnOperationIsAnswered) {
  auto one = task("editing", "paused", false, true);
  one["busy"] = true;
  EXPECT_EQ(judge(one, Goal::settled), Standing::under_way);
  one["busy"] = false;
  EXPECT_EQ(judge(one, Goal::settled), Standing::reached);
  one["errormsg"] = "no space on nc1";
  EXPECT_EQ(judge(one, Goal::settled), Standing::failed) << "the VM is well, the operation was refused";
  EXPECT_EQ(judge(task("editing", "deleting"), Goal::settled), Standing::failed);
  EXPECT_EQ(judge(task("submitting", "gone", false, true), Goal::settled), Standing::failed);
}

TEST(Limits, AreSpokenOfOnlyWhereGiven) {
  LimitOptions options;
  EXPECT_EQ(limits_body(options), json::object());
  options.cpu_percent = 0, options.disk_iops = 500;
  EXPECT_EQ(limits_body(options), json({{"cpu_percent", 0}, {"disk_iops", 500}}));
  EXPECT_EQ(describe_limits({{"cpu_percent", 150}, {"cpu_weight", 0}, {"disk_iops", 500}}),
            "cpu_percent 150, disk_iops 500");
  EXPECT_EQ(describe_limits(nullptr), "");
}

TEST(Step, TakesTheRateThatTheTaskTells) {
  json one = task("preparing", "downloading");
  one["bytes_done"] = 1 << 20, one["bytes_total"] = 11 << 20, one["bytes_per_s"] = 1 << 20;
  const Step step = step_of(one);
  EXPECT_EQ(step.bytes_per_s, 1 << 20);
  EXPECT_EQ(render_plain(step, static_cast<double>(step.bytes_per_s)),
            "preparing/downloading  9%  1.0 MiB / 11.0 MiB  1.0 MiB/s  00:10 left");
  one["bytes_per_s"] = "much";
  EXPECT_EQ(step_of(one).bytes_per_s, 0);
}

TEST(Step, TellsThePlaceInTheBootQueue) {
  json one = task("preparing", "done");
  EXPECT_EQ(queue_text(one), "");
  one["queue_place"] = 3, one["queue_reason"] = "place 3 of 12 in the boot queue of nc1";
  EXPECT_EQ(step_of(one).label, "preparing/done place 3 of 12 in the boot queue of nc1");
  EXPECT_NE(describe_task(one).find("place 3 of 12"), std::string::npos);
}

TEST(Plan, TakesALocalTimeAndNothingElse) {
  ::setenv("TZ", "UTC", 1);
  ::tzset();
  EXPECT_EQ(*parse_local_time("2026-11-21T09:00"), 1'795'251'600'000);
  EXPECT_EQ(*parse_local_time("2026-11-21 09:00"), 1'795'251'600'000);
  for (const char* bad : {"", "soon", "2026-11-21", "2026-02-31T09:00", "2026-11-21T09:00Z", "1795251600"})
    EXPECT_EQ(parse_local_time(bad).error().key, "at") << bad;
}

TEST(Plan, IsTold) {
  const auto plan = json::parse(R"({"fits":14,"count":35,"missing":21,"image_name":"debian","policy":"pack",
      "request":{"version":2,"memory_mib":4096,"cpus":1},
      "bottleneck":{"text":"21 of 35 find no place: memory","remedy":"nc1: free 4 MiB","memory_mib_that_fits":1024},
      "per_node":[{"host":"nc1","cluster":"cc1","vms":14,"fetch_mib":500,"reason":"memory: full","fix":"free 4 MiB"}],
      "estimate_s":{"fetch":61,"boot":30,"total":91},"notes":["an assumed 1 Gbit/s"]})");
  const auto text = describe_plan(plan);
  for (const char* part : {"14 of 35 fit: debian version 2", "Short: 21 of 35",
                           "Nearest remedy: nc1: free 4 MiB", "With 1024 MiB each all would fit",
                           "about 01:31: 01:01 to fetch", "(an assumed 1 Gbit/s)", "memory: full"})
    EXPECT_THAT(text, testing::HasSubstr(part));
  EXPECT_FALSE(describe_plan(json::object()).empty());
}

TEST(Why, IsTold) {
  auto why = json::parse(
      R"({"tid":"t","policy":"image_first","chosen":"","nearest_fix":"nc2: free 144 MiB","others":3,
      "request":{"memory_mib":4096,"cpus":1,"image":"IMG00000001","version":2,"cluster":"cc1","node":""},
      "nodes":[{"host":"nc2","rank":0,"reason":"memory: needs 4096","fix":"free 144 MiB","has_image":true},
               {"host":"nc1","rank":0,"reason":"lost\u001b[2J","fix":"check"}],"task":null})");
  auto text = describe_why(why);
  for (const char* part : {"4096 MiB, 1 cpus, IMG00000001 version 2, cluster cc1",
                           "Nearest remedy: nc2: free 144 MiB", "memory: needs 4096", "and 3 more nodes"})
    EXPECT_THAT(text, testing::HasSubstr(part));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  why["chosen"] = "nc1";
  why["task"] = {{"queue_place", 2}, {"queue_reason", "place 2 of 5 in the boot queue of nc1"}};
  text = describe_why(why);
  EXPECT_THAT(text, testing::HasSubstr("Chosen: nc1"));
  EXPECT_THAT(text, testing::HasSubstr("Now: place 2 of 5"));
  EXPECT_FALSE(describe_why(json::object()).empty());
}

TEST(SubmitBody, IsEmptyUnlessAsked) {
  EXPECT_EQ(submit_body(""), json::object());
  EXPECT_EQ(submit_body("replace"), json({{"on_conflict", "replace"}}));
}

TEST(UploadTarget, IsTakenApartAndChecked) {
  json target = {{"url", "http://10.0.0.1:8001/uploads"}, {"cmdid", "c"}, {"format", "raw"}};
  target["query"] = "image=IMG0123abcd&version=1&node=user&expires=99&sig=abc";
  auto request = parse_upload_target(target);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->base.host, "10.0.0.1");
  EXPECT_EQ(request->base.port, 8001);
  EXPECT_EQ(request->imgid, "IMG0123abcd");
  EXPECT_EQ(request->version, 1);
  EXPECT_EQ(request->grant, "node=user&expires=99&sig=abc");
  for (const auto& [key, bad] : std::vector<std::pair<std::string, std::string>>{
           {"url", "http://10.0.0.1:8001/other"},
           {"url", "nonsense/uploads"},
           {"query", "image=../x&version=1&sig=a"},
           {"query", ""},
           {"query", "image=IMG0123abcd&version=1\r\nX: y&sig=a"}}) {
    auto changed = target;
    changed[key] = bad;
    EXPECT_FALSE(parse_upload_target(changed)) << bad;
  }
  EXPECT_FALSE(parse_upload_target(json::object()));
}

TEST(VmSet, SaysOnlyWhatIsGiven) {
  VmSetArguments given;
  EXPECT_EQ(vm_change(given).error().code, ErrorCode::invalid_argument);
  given.autostart = false;
  EXPECT_EQ(*vm_change(given), json({{"autostart", false}}));
  EXPECT_FALSE(waits_for_start(*vm_change(given)));
  given = {};
  given.node = given.cluster = "any", given.version = "latest";
  EXPECT_EQ(*vm_change(given), json({{"node", ""}, {"cluster", ""}, {"version", 0}}));
  EXPECT_TRUE(waits_for_start(*vm_change(given)));
  given = {};
  given.node = "nc2", given.vmtype = "vdlarge", given.memory_mib = 512, given.cpus = 3, given.version = "7";
  EXPECT_EQ(*vm_change(given),
            json({{"node", "nc2"}, {"vmtype", "vdlarge"}, {"memory_mib", 512}, {"cpus", 3}, {"version", 7}}));
  for (const char* bad : {"0", "-1", "7x", "newest", " 7"}) {
    given.version = bad;
    EXPECT_EQ(vm_change(given).error().key, "version") << bad;
  }
}

TEST(VmView, ShowsAddressesOnlyWhileThereAreSome) {
  json vm = {
      {"insid", "VD01234567"},
      {"access",
       {{"address", "10.0.0.3"}, {"display_port", 5901}, {"web_port", 20001}, {"display_password", "pw"}}}};
  add_addresses(vm);
  EXPECT_EQ(vm["display_address"], "10.0.0.3:5901");
  EXPECT_EQ(vm["web_url"], "http://10.0.0.3:20001/");
  json idle = {{"insid", "VD01234567"}, {"access", nullptr}};
  add_addresses(idle);
  EXPECT_TRUE(idle["display_address"].is_null());
  EXPECT_TRUE(idle["web_url"].is_null());
}

}  // namespace
}  // namespace educloud::cli
