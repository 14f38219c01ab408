#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/ids.hpp"
#include "common/bus/memory_bus.hpp"
#include "common/inbox/inbox.hpp"
#include "support/fault.hpp"

namespace educloud::inbox {
namespace {

Options options(const std::filesystem::path& folder) {
  Options made;
  made.file = folder / "inbox.sqlite";
  made.exchange = "cc_status";
  made.routing_key = "taskstatus.nc-nc1";
  made.nid = "nc1";
  return made;
}

/// Takes commands over and tells of each on a pipe once it may be acked, until it is killed.
[[noreturn]] void child(const std::filesystem::path& folder, int acked, unsigned first) {
  bus::MemoryBroker broker;
  broker.bind("cc_status", "taskstatus.nc-nc1", "cc_status_queue");
  const auto bus = broker.connect("nc-nc1");
  const SystemClock clock;
  auto opened = Inbox::open(options(folder), *bus, clock);
  if (!opened) _exit(1);
  for (unsigned i = first;; ++i) {
    std::array<char, 9> hex{};
    std::snprintf(hex.data(), hex.size(), "%08x", i);
    msg::Command command;
    command.op = "image/run";
    command.tid = "IMG00000001:IMG00000001:VD" + std::string(hex.data());
    command.cmdid = new_command_id().str();
    auto accepted = (*opened)->accept(command);
    if (!accepted || *accepted != Accepted::fresh) _exit(2);
    if (i % 2 == 0) {
      Report report{
          command.tid, command.cmdid, task::Event::running, {task::Phase::editing, task::State::running}};
      report.final = true;
      if (!(*opened)->report(report)) _exit(3);
    }
    if (::write(acked, &i, sizeof i) != sizeof i) _exit(4);
  }
}

TEST(InboxProcess, WhatWasAckedSurvivesKill9) {
  char pattern[] = "/tmp/educloud-inbox-kill-XXXXXX";
  const std::filesystem::path folder = mkdtemp(pattern);
  unsigned last = 0;
  for (int round = 0; round < 3; ++round) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) child(folder, ends[1], last + 1);
    close(ends[1]);
    unsigned number = 0;
    for (int i = 0; i < 100 && read(ends[0], &number, sizeof number) == sizeof number; ++i) last = number;
    kill(pid, SIGKILL);
    educloud::test::injected("daemon-killed");
    waitpid(pid, nullptr, 0);
    while (read(ends[0], &number, sizeof number) == sizeof number) last = number;
    close(ends[0]);
    ++last;  // one more may be on disk without having been acked
  }
  bus::MemoryBroker broker;
  const auto bus = broker.connect("nc-nc1");
  const SystemClock clock;
  auto opened = Inbox::open(options(folder), *bus, clock);
  ASSERT_TRUE(opened) << opened.error().message;
  const auto tasks = (*opened)->tasks();
  EXPECT_GE(last, 300u);
  EXPECT_GE(tasks.size(), last - 3);
  EXPECT_LE(tasks.size(), last);
  for (const auto& task : tasks) {
    const unsigned number = static_cast<unsigned>(std::stoul(task.command.tid.substr(26), nullptr, 16));
    if (number % 2 == 0 && number < last - 1 && !task.finished) ADD_FAILURE() << "lost the end of " << number;
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace educloud::inbox
