#include <gmock/gmock.h>

#include "clc/domain/commands.hpp"
#include "clc/domain/rights.hpp"
#include "clc/domain/task_rules.hpp"

namespace educloud::clc {
namespace {

using task::Event;
using task::Phase;
using task::State;
using testing::HasSubstr;

constexpr const char* kCmdid = "01890000-0000-7000-8000-000000000001";

Task task_at(TaskKind kind, task::TaskState state) {
  Task task;
  task.tid = "IMG00000001:IMG00000001:TMP00000001";
  task.insid = "TMP00000001";
  task.kind = kind;
  task.state = state;
  task.node = "nc1";
  task.cluster = "cc1";
  task.op = "image/prepare";
  task.cmdid = kCmdid;
  task.seq = 5;
  return task;
}

msg::TaskStatus status_of(Event event) {
  msg::TaskStatus status;
  status.tid = "IMG00000001:IMG00000001:TMP00000001";
  status.event = to_string(event);
  status.cmdid = kCmdid;
  status.nid = "nc1";
  status.epoch = 1;
  status.attempt = 1;
  status.seq = 6;
  return status;
}

TEST(StatusRule, AcceptsOnlyWhatIsNewerFromTheRightHostOnThePresentCommand) {
  const auto task = task_at(TaskKind::modify, {Phase::preparing, State::init});
  const auto verdict = [&](auto change, std::string_view sender = "cc-cc1") {
    auto status = status_of(Event::downloading);
    change(status);
    return judge_status(task, status, sender).verdict;
  };
  EXPECT_EQ(verdict([](auto&) {}), Verdict::accept);
  EXPECT_EQ(verdict([](auto& s) { s.seq = 5; }), Verdict::duplicate);
  EXPECT_EQ(verdict([](auto& s) { s.seq = 4; }), Verdict::stale);
  EXPECT_EQ(verdict([](auto& s) { s.epoch = 0, s.seq = 99; }), Verdict::stale);
  EXPECT_EQ(verdict([](auto& s) { s.attempt = 0, s.seq = 99; }), Verdict::stale);
  EXPECT_EQ(verdict([](auto& s) { s.cmdid = "01890000-0000-7000-8000-000000000002"; }),
            Verdict::other_command);
  EXPECT_EQ(verdict([](auto& s) { s.nid = "nc2"; }), Verdict::wrong_sender);
  EXPECT_EQ(verdict([](auto&) {}, "cc-cc2"), Verdict::wrong_sender);
  EXPECT_EQ(verdict([](auto&) {}, "nc-nc1"), Verdict::wrong_sender);
  EXPECT_EQ(verdict([](auto&) {}, "walrus"), Verdict::wrong_sender);
  EXPECT_EQ(verdict([](auto& s) { s.event = "submitted"; }), Verdict::not_allowed);
  EXPECT_EQ(verdict([](auto& s) { s.event = "exploded"; }), Verdict::malformed);
  for (const Event ours : {Event::start, Event::stop, Event::submit, Event::cancel, Event::timeout}) {
    EXPECT_EQ(verdict([&](auto& s) { s.event = to_string(ours); }), Verdict::malformed) << to_string(ours);
  }
}

TEST(StatusRule, ARefusedOperationLeavesTheVmWhereItsNodeSays) {
  const auto after = [](State from, const char* told, std::int64_t seq = 6) {
    auto status = status_of(Event::refused);
    status.state = told;
    status.seq = seq;
    auto task = task_at(TaskKind::run, {Phase::editing, from});
    task.seq = -1;
    const auto judged = judge_status(task, status, "cc-cc1");
    EXPECT_EQ(judged.verdict, Verdict::accept);
    return std::string(to_string(judged.event)) + " " + std::string(to_string(judged.transition->to.state));
  };
  EXPECT_EQ(after(State::migrating, "running"), "refused running");
  EXPECT_EQ(after(State::migrating, "paused"), "refused paused");
  EXPECT_EQ(after(State::running, "paused"), "refused paused");
  EXPECT_EQ(after(State::paused, "running"), "refused running");
  EXPECT_EQ(after(State::paused, "paused"), "refused paused");
  EXPECT_EQ(after(State::migrating, "stopped"), "failed stopped");
  EXPECT_EQ(after(State::stopped, "running"), "refused stopped") << "that is the reconciliation's";
  EXPECT_EQ(after(State::paused, "running", 0), "refused paused") << "its cc does not know";
}

TEST(StatusRule, WalrusSpeaksForImportsOnly) {
  auto task = task_at(TaskKind::import, {Phase::submitting, State::init});
  auto status = status_of(Event::uploading);
  status.nid = "";
  EXPECT_EQ(judge_status(task, status, "walrus").verdict, Verdict::accept);
  EXPECT_EQ(judge_status(task, status, "cc-cc1").verdict, Verdict::wrong_sender);
  status.event = "deleted";
  EXPECT_EQ(judge_status(task, status, "walrus").verdict, Verdict::not_allowed);
  task.kind = TaskKind::prune;
  EXPECT_EQ(judge_status(task, status, "walrus").event, Event::submitted);
}

TEST(TaskRules, WhatAUserMayAskForInEachState) {
  const task::TaskState stopped{Phase::editing, State::stopped}, running{Phase::editing, State::running};
  const task::TaskState submitting{Phase::submitting, State::init};
  EXPECT_TRUE(user_transition(task_at(TaskKind::modify, stopped), Event::submit));
  EXPECT_TRUE(user_transition(task_at(TaskKind::run, stopped), Event::start));
  EXPECT_TRUE(user_transition(task_at(TaskKind::run, running), Event::stop));
  const auto text = [](const Task& task, Event event) {
    return user_transition(task, event).error().message;
  };
  EXPECT_THAT(text(task_at(TaskKind::run, stopped), Event::submit), HasSubstr("only a modify or build"));
  EXPECT_THAT(text(task_at(TaskKind::modify, running), Event::submit), HasSubstr("stop its VM first"));
  EXPECT_THAT(text(task_at(TaskKind::run, running), Event::start), HasSubstr("has to be stopped first"));
  EXPECT_THAT(text(task_at(TaskKind::import, submitting), Event::start), HasSubstr("it has no VM"));
  EXPECT_THAT(text(task_at(TaskKind::import, submitting), Event::submit), HasSubstr("waits for its upload"));
  EXPECT_THAT(text(task_at(TaskKind::prune, submitting), Event::cancel),
              HasSubstr("walrus is carrying it out"));
  auto unanswered = task_at(TaskKind::prune, submitting);
  unanswered.failed = true, unanswered.seq = -1;
  EXPECT_THAT(text(unanswered, Event::cancel), HasSubstr("may still do it"));
  EXPECT_TRUE(user_transition(unanswered, Event::submit));
  EXPECT_THAT(text(task_at(TaskKind::modify, {Phase::submitting, State::gone}), Event::cancel),
              HasSubstr("has ended"));
  auto waiting = task_at(TaskKind::modify, {Phase::preparing, State::init});
  waiting.op_open = true;
  EXPECT_THAT(text(waiting, Event::start), HasSubstr("under way already"));
  waiting.failed = true, waiting.op_open = false;
  EXPECT_TRUE(user_transition(waiting, Event::start));
}

TEST(StatusRule, APushEndsWhereOthersWouldRun) {
  auto task = task_at(TaskKind::push, {Phase::preparing, State::downloading});
  task.op_open = true;
  auto status = status_of(Event::prepared);
  const auto judged = judge_status(task, status, "cc-cc1");
  ASSERT_EQ(judged.verdict, Verdict::accept);
  EXPECT_EQ(judged.event, Event::fetched);
  EXPECT_EQ(judged.transition->action, task::Action::send_delete);
  EXPECT_TRUE(answers("image/prepare", judged.event));
  const auto after = after_event(task, *judged.transition, &status, 1000);
  EXPECT_TRUE(after.achieved);
  EXPECT_FALSE(needs_source(after));
  EXPECT_TRUE(needs_source(task));
  // No node may say so of a task with a VM.
  status.event = "fetched";
  EXPECT_EQ(judge_status(task_at(TaskKind::modify, task.state), status, "cc-cc1").verdict,
            Verdict::malformed);
  EXPECT_EQ(judge_status(task, status, "cc-cc1").verdict, Verdict::malformed);
}

TEST(TaskRules, APushIsTriedAgainOrCancelledAndHasNoVm) {
  auto task = task_at(TaskKind::push, {Phase::preparing, State::init});
  task.failed = true;
  EXPECT_TRUE(user_transition(task, Event::start));
  EXPECT_TRUE(user_transition(task, Event::cancel));
  EXPECT_FALSE(user_transition(task, Event::stop));
  EXPECT_FALSE(user_transition(task, Event::submit));
  task.op_open = true;
  EXPECT_GE(patience_ms(task), 60 * 60'000) << "it waits behind those who want a desktop";
}

TEST(SourceInUse, AConflictNamesBothVersionsAndTheChoices) {
  auto task = task_at(TaskKind::modify, {Phase::editing, State::stopped});
  task.dst = "IMG00000001";
  task.source_version = 3;
  EXPECT_TRUE(check_source_in_use(task, 3));
  const auto refused = check_source_in_use(task, 5);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  for (const char* part : {"version 3", "version 5", "on_conflict=replace", "rolled back", "cancel"})
    EXPECT_THAT(refused.error().message, HasSubstr(part));
  task.replace = true;
  EXPECT_TRUE(check_source_in_use(task, 5));
  task.replace = false;
  task.kind = TaskKind::build;
  EXPECT_TRUE(check_source_in_use(task, 5)) << "it makes an image of its own";
  task.kind = TaskKind::import;
  EXPECT_TRUE(check_source_in_use(task, 5));
}

TEST(TaskRules, EveryTransientStateOfAnOpenCommandHasADeadline) {
  for (const auto state : task::states()) {
    auto task = task_at(TaskKind::modify, state);
    task.op_open = true;
    if (!task::is_transient(state)) continue;
    EXPECT_GT(patience_ms(task), 0) << to_string(state.state);
  }
  auto stopping = task_at(TaskKind::run, {Phase::editing, State::running});
  EXPECT_EQ(patience_ms(stopping), 0);
  stopping.op = "image/stop", stopping.op_open = true;
  EXPECT_GT(patience_ms(stopping), 0);
}

TEST(TaskRules, FailureIsShownUntilSomethingHappens) {
  auto task = task_at(TaskKind::modify, {Phase::preparing, State::downloading});
  task.op_open = true;
  auto status = status_of(Event::failed);
  status.errormsg = "disk full on nc1: free 3 GiB";
  task = after_event(task, *task::step(task.state, Event::failed), &status, 1000);
  EXPECT_TRUE(task.failed);
  EXPECT_EQ(task.errormsg, "disk full on nc1: free 3 GiB");
  EXPECT_FALSE(task.op_open);
  EXPECT_EQ(task.deadline_at, 0);
  task = after_event(task, *task::step(task.state, Event::start), nullptr, 2000);
  EXPECT_FALSE(task.failed);
  EXPECT_EQ(task.errormsg, "");
}

TEST(TaskRules, AWarningIsShownUntilSomethingHappens) {
  auto task = task_at(TaskKind::run, {Phase::editing, State::booting});
  auto status = status_of(Event::running);
  status.errormsg = "d: lacks what was written on node nc7";
  task = after_event(task, *task::step(task.state, Event::running), &status, 1000);
  EXPECT_FALSE(task.failed);
  EXPECT_EQ(task.errormsg, status.errormsg);
  status.errormsg.clear();
  task = after_event(task, *task::step(task.state, Event::paused), &status, 2000);
  EXPECT_EQ(task.errormsg, "");
}

TEST(Format, AVersionFromBeforeChunksIsNotSentToANode) {
  Version version;
  version.imgid = "IMG00000001";
  version.version = 2;
  EXPECT_TRUE(check_format(version));
  version.format = "qcow2";
  EXPECT_THAT(check_format(version).error().message, HasSubstr("import it again"));
}

TEST(Rights, AreDeniedByDefault) {
  const Principal nobody, admin{"root", true}, ann{"ann", false};
  for (int i = 0; i <= static_cast<int>(Deed::force_task); ++i) {
    const auto deed = static_cast<Deed>(i);
    EXPECT_FALSE(may(nobody, deed, "ann")) << to_string(deed);
    EXPECT_TRUE(may(admin, deed, "ann")) << to_string(deed);
    EXPECT_FALSE(to_string(deed).empty());
  }
  EXPECT_FALSE(may(ann, static_cast<Deed>(99), "ann"));
  EXPECT_TRUE(may(ann, Deed::control_vm, "ann"));
  EXPECT_FALSE(may(ann, Deed::control_vm, "bob"));
  EXPECT_FALSE(may(ann, Deed::control_vm, ""));
  EXPECT_FALSE(may(ann, Deed::create_image, "ann"));
  EXPECT_FALSE(may(ann, Deed::change_vmtypes, ""));
  EXPECT_FALSE(may(ann, Deed::exceed_limits, "ann"));
  EXPECT_TRUE(may(ann, Deed::create_vm, ""));
  EXPECT_EQ(check(ann, Deed::see_vm, "bob", "instance VD1").error().code, ErrorCode::not_found);
  EXPECT_EQ(check(ann, Deed::change_image, "bob", "image x").error().code, ErrorCode::permission_denied);
}

TEST(Commands, CarryWhatTheirOpNeedsAndPassTheSchema) {
  auto task = task_at(TaskKind::run, {Phase::preparing, State::done});
  task.dst = "IMG00000001";
  CommandParts parts;
  parts.source = Version{"IMG00000001", 3, std::string(64, 'a'), 1000, 2000, "raw", 0, 0, false, 0, ""};
  parts.memory_mib = 4096;
  parts.ostype = "linux", parts.usage = "desktop", parts.disk_type = "virtio", parts.nic_type = "virtio";
  parts.access = {"10.0.0.5", 5901, 20001, "secret88"};
  const auto run = make_command(task, "image/run", parts, kCmdid, 1000, 500);
  const auto parsed = msg::parse<msg::Command>(msg::serialize(run));
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->deadline, 1500);
  EXPECT_EQ(parsed->nid, "nc1");
  EXPECT_EQ(parsed->runtime_option->rdp_port, 5901);
  EXPECT_EQ(parsed->runtime_option->networkcards[0].nic_mac, "52:54:00:00:00:01");
  EXPECT_EQ(parsed->source->version, 3);
  EXPECT_EQ(parsed->source->disk_bytes, 2000);
  EXPECT_EQ(parsed->lazy, 0);
  EXPECT_EQ(parsed->priority, "user");
  task.lazy = true;
  EXPECT_EQ(make_command(task, "image/run", parts, kCmdid, 1000, 500).lazy, 1);
  EXPECT_EQ(make_command(task, "image/prepare", parts, kCmdid, 1000, 500).lazy, 1);
  EXPECT_EQ(make_command(task, "image/stop", parts, kCmdid, 1000, 500).lazy, 0);
  const auto erase = make_command(task, "task/delete", parts, kCmdid, 1000, 500);
  EXPECT_FALSE(erase.runtime_option);
  EXPECT_FALSE(erase.source);
  EXPECT_TRUE(msg::parse<msg::Command>(msg::serialize(erase)));
}

TEST(Commands, NameTheDatabaseDisk) {
  auto task = task_at(TaskKind::modify, {Phase::submitting, State::init});
  CommandParts parts;
  parts.database.emplace();
  parts.database->source =
      Version{"IMG00000009", 5, std::string(64, 'd'), 1000, 2000, "raw", 0, 0, false, 0, ""};
  parts.database->mode = "nbd";
  parts.database->lost = {"nc7"};
  parts.database->grant = "node=nc1&expires=1&sig=a";
  parts.database->target_imgid = "IMG00000009";
  parts.database->target_version = 6;
  parts.database->target_grant = "node=nc1&expires=1&sig=b";
  const auto command =
      msg::parse<msg::Command>(msg::serialize(make_command(task, "image/submit", parts, kCmdid, 1000, 500)));
  ASSERT_TRUE(command) << command.error().message;
  EXPECT_EQ(command->database->version, 5);
  EXPECT_EQ(command->database->disk_bytes, 2000);
  EXPECT_EQ(command->database_mode, "nbd");
  EXPECT_EQ(command->database_lost, std::vector<std::string>{"nc7"});
  EXPECT_EQ(command->database_grant, "node=nc1&expires=1&sig=a");
  EXPECT_EQ(command->database_target_imgid, "IMG00000009");
  EXPECT_EQ(command->database_target_version, 6);
  EXPECT_EQ(command->database_target_grant, "node=nc1&expires=1&sig=b");
}

TEST(Commands, OfAPushHaveNoVm) {
  auto task = task_at(TaskKind::push, {Phase::preparing, State::init});
  task.lazy = true;
  CommandParts parts;
  parts.source = Version{"IMG00000001", 3, std::string(64, 'a'), 1000, 2000, "raw", 0, 0, false, 0, ""};
  const auto command = make_command(task, "image/prepare", parts, kCmdid, 1000, 500);
  EXPECT_EQ(command.priority, "prefetch");
  EXPECT_FALSE(command.runtime_option);
  EXPECT_EQ(command.lazy, 0);
  EXPECT_TRUE(msg::parse<msg::Command>(msg::serialize(command)));
}

TEST(Commands, ASubmitSaysWhichVersionMustBeInUse) {
  auto task = task_at(TaskKind::modify, {Phase::submitting, State::init});
  task.src = task.dst = "IMG00000001";
  task.source_version = 3;
  task.target_version = 4;
  const auto if_current = [&] {
    return make_command(task, "image/submit", {}, kCmdid, 1000, 500).if_current;
  };
  EXPECT_EQ(if_current(), "IMG00000001/3");
  task.replace = true;
  EXPECT_EQ(if_current(), "");
  task.replace = false;
  task.kind = TaskKind::build;
  EXPECT_EQ(if_current(), "");
}

}  // namespace
}  // namespace educloud::clc
