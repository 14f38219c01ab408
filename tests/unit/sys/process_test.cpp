#include "common/sys/process.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "common/sys/file.hpp"
#include "support/temp_dir.hpp"

namespace educloud::sys {
namespace {

using std::chrono::steady_clock;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ProcessOptions shell(const std::string& script) {
  ProcessOptions options;
  options.argv = {"sh", "-c", script};
  return options;
}

TEST(Process, GivesBothStreamsAndTheExitCode) {
  const auto result = run(shell("echo out; echo err >&2; exit 3"));
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->out, "out\n");
  EXPECT_EQ(result->err, "err\n");
  EXPECT_EQ(result->exit_code, 3);
}

TEST(Process, PassesArgumentsAsTheyAre) {
  ProcessOptions options;
  options.argv = {"printf", "%s|", "a b", "$HOME", "*", "'"};
  EXPECT_EQ(run_checked(options).value(), "a b|$HOME|*|'|");
}

TEST(Process, HasOnlyAKnownEnvironment) {
  ::setenv("EDUCLOUD_TEST_SECRET", "hunter2", 1);
  ProcessOptions options;
  options.argv = {"env"};
  const auto out = run_checked(options).value();
  EXPECT_THAT(out, HasSubstr("PATH="));
  EXPECT_THAT(out, HasSubstr("LANG=C.UTF-8"));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2) << out;
}

TEST(Process, InheritsNoDescriptors) {
  // Opened without O_CLOEXEC on purpose, as a library might.
  const int leaked = ::open("/dev/null", O_RDONLY);
  ASSERT_GT(leaked, 2);
  const auto out = run_checked(shell("ls /proc/self/fd | tr '\\n' ' '")).value();
  ::close(leaked);
  EXPECT_EQ(out, "0 1 2 3 ");  // 3 is the directory that ls itself reads
}

TEST(Process, MissingProgramIsNotFound) {
  ProcessOptions options;
  options.argv = {"no-such-program-here"};
  auto result = run(options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::not_found);
  options.argv = {"/no/such/program"};
  result = run(options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::not_found);
  EXPECT_THAT(result.error().message, HasSubstr("/no/such/program"));
}

TEST(Process, AFileThatCannotBeExecutedIsAnError) {
  const educloud::testing::TempDir dir;
  ProcessOptions options;
  options.argv = {dir.write("data", "not a program").string()};
  const auto result = run(options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::permission_denied);
  EXPECT_THAT(result.error().message, HasSubstr("execute the program"));
}

TEST(Process, EmptyArgvAndNulAreRefused) {
  EXPECT_EQ(run({}).error().code, ErrorCode::invalid_argument);
  ProcessOptions options;
  options.argv = {"echo", std::string("a\0b", 3)};
  EXPECT_EQ(run(options).error().code, ErrorCode::invalid_argument);
}

TEST(Process, InputReachesItsStdin) {
  ProcessOptions options;
  options.argv = {"wc", "-c"};
  options.input = std::string(1 << 20, 'x');  // more than a pipe holds
  EXPECT_THAT(run_checked(options).value(), StartsWith("1048576"));
}

TEST(Process, AProgramThatDoesNotReadItsInputIsNoError) {
  auto options = shell("exec <&-; echo done");
  options.input = std::string(1 << 20, 'x');
  EXPECT_EQ(run_checked(options).value(), "done\n");
}

TEST(Process, OutputIsBoundedAndTheRestDropped) {
  auto options = shell("head -c 1000000 /dev/zero | tr '\\0' a; echo end >&2");
  options.output_limit = 1000;
  std::size_t seen = 0;
  options.on_stdout = [&seen](std::string_view piece) { seen += piece.size(); };
  const auto result = run(options);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->out, std::string(1000, 'a'));
  EXPECT_EQ(result->err, "end\n");
  EXPECT_EQ(seen, 1000000U);
}

TEST(Process, TimeoutKillsTheWholeGroup) {
  const educloud::testing::TempDir dir;
  const auto pid_file = dir / "pid";
  auto options = shell("sleep 300 & echo $! >" + pid_file.string() + "; wait");
  options.timeout = std::chrono::milliseconds(500);
  const auto begin = steady_clock::now();
  const auto result = run(options);
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(20));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::timeout);
  const auto grandchild = std::stoi(educloud::testing::slurp(pid_file));
  // Its new parent reaps it some time; until then it may be a zombie, which kill(0) still finds.
  const auto deadline = steady_clock::now() + std::chrono::seconds(20);
  const auto alive = [&] {
    const auto stat = educloud::testing::slurp("/proc/" + std::to_string(grandchild) + "/stat");
    return !stat.empty() && stat.find(") Z") == std::string::npos;
  };
  while (alive() && steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_FALSE(alive());
}

TEST(Process, AnEndlessWriterStillMeetsItsDeadline) {
  ProcessOptions options;
  options.argv = {"yes"};
  options.timeout = std::chrono::milliseconds(300);
  EXPECT_EQ(run(options).error().code, ErrorCode::timeout);
}

TEST(Process, DoesNotWaitForWhatTheProgramLeftBehind) {
  const auto begin = steady_clock::now();
  const auto result = run(shell("sleep 300 & echo ready"));
  ASSERT_TRUE(result);
  EXPECT_EQ(result->out, "ready\n");
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(Process, StopTokenCancels) {
  const auto source = std::make_unique<std::stop_source>();
  auto options = shell("echo started; sleep 300");
  // Asked to stop from within, when it certainly runs.
  options.on_stdout = [&source](std::string_view) { source->request_stop(); };
  EXPECT_EQ(run(options, source->get_token()).error().code, ErrorCode::cancelled);
  EXPECT_EQ(run(shell("true"), source->get_token()).error().code, ErrorCode::cancelled);
}

TEST(Process, RunCheckedTellsTheLastLines) {
  const auto result = run_checked(shell("echo first >&2; echo 'the reason' >&2; exit 7"));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::internal);
  EXPECT_THAT(result.error().message, HasSubstr("exit code 7"));
  EXPECT_THAT(result.error().message, HasSubstr("the reason"));
}

TEST(Process, ASignalBecomesAnExitCode) {
  EXPECT_EQ(run(shell("kill -TERM $$"))->exit_code, 128 + SIGTERM);
}

TEST(Process, LimitsHold) {
  ProcessOptions options = shell("ulimit -v; ulimit -t; ulimit -f; ulimit -c");
  options.address_space_limit = 512 << 20;
  options.cpu_seconds_limit = 7;
  options.file_size_limit = 1 << 20;
  const auto out = run_checked(options);
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_THAT(*out, StartsWith("524288\n7\n2048\n0\n"));  // KiB, seconds, blocks of 512
}

TEST(Process, CpuLimitEndsABusyLoop) {
  auto options = shell("while :; do :; done");
  options.cpu_seconds_limit = 1;
  const auto result = run(options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->exit_code, 128 + SIGXCPU);
}

TEST(Process, WorkingDirectory) {
  const educloud::testing::TempDir dir;
  ProcessOptions options;
  options.argv = {"pwd"};
  options.working_directory = dir.path().string();
  EXPECT_EQ(run_checked(options).value(), dir.path().string() + "\n");
  options.working_directory = "/no/such/directory";
  EXPECT_THAT(run(options).error().message, HasSubstr("enter the working directory"));
}

TEST(Process, SignalsAreAsForANewProgram) {
  // The daemon blocks SIGTERM and ignores SIGPIPE; its children must not.
  sigset_t set, before;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &set, &before);
  const auto old = ::signal(SIGPIPE, SIG_IGN);
  const auto out = run_checked(shell("grep -E '^Sig(Blk|Ign)' /proc/self/status"));
  ::signal(SIGPIPE, old);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ASSERT_TRUE(out);
  EXPECT_EQ(*out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST(Process, DiesWithItsParent) {
  const educloud::testing::TempDir dir;
  const auto pid_file = dir / "pid";
  const pid_t parent = ::fork();
  if (parent == 0) {
    auto options = shell("echo $$ >" + pid_file.string() + ".new; mv " + pid_file.string() + ".new " +
                         pid_file.string() + "; exec sleep 300");
    options.timeout = std::chrono::minutes(5);
    static_cast<void>(run(options));
    ::_exit(0);
  }
  const auto deadline = steady_clock::now() + std::chrono::seconds(30);
  while (!std::filesystem::exists(pid_file) && steady_clock::now() < deadline) std::this_thread::yield();
  ASSERT_TRUE(std::filesystem::exists(pid_file));
  const auto child = std::stoi(educloud::testing::slurp(pid_file));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  const auto alive = [&] {
    const auto stat = educloud::testing::slurp("/proc/" + std::to_string(child) + "/stat");
    return !stat.empty() && stat.find(") Z") == std::string::npos;
  };
  while (alive() && steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_FALSE(alive());
}

TEST(Process, AnotherUserWithoutNetwork) {
  auto options = shell(
      "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; ls /sys/class/net 2>/dev/null | wc -l;"
      " grep -c : /proc/net/dev");
  options.run_as_user = "nobody";
  options.without_network = true;
  const auto out = run(options);
  if (::geteuid() != 0) {
    EXPECT_EQ(out.error().code, ErrorCode::permission_denied);
    return;
  }
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_THAT(out->out, StartsWith("65534\n65534\n65534\nNoNewPrivs:\t1\n"));
  EXPECT_THAT(out->out, ::testing::EndsWith("\n1\n"));  // only the loopback is left
}

TEST(Process, UnknownUserAndRootAreRefused) {
  if (::geteuid() != 0) return;
  auto options = shell("true");
  options.run_as_user = "no-such-user";
  EXPECT_EQ(run(options).error().code, ErrorCode::not_found);
  options.run_as_user = "root";
  EXPECT_EQ(run(options).error().code, ErrorCode::invalid_argument);
}

TEST(Process, ManyAtOnceFromManyThreads) {
  std::atomic<int> good{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&good, i] {
      for (int round = 0; round < 10; ++round) {
        const auto text = std::to_string(i) + "." + std::to_string(round);
        ProcessOptions options;
        options.argv = {"cat"};
        options.input = text;
        if (run_checked(options).value_or("") == text) ++good;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(good, 80);
}

}  // namespace
}  // namespace educloud::sys
