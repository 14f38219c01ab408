#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

/// Two VMs may boot on a node at once; all are on nc1.
class BootGateFlow : public CloudTest {
 protected:
  void tune(CloudOptions& options) override {
    options.gate.max_parallel = 2;
    options.gate.slot_ms = slot_ms;
    options.display_port_last = 5999;
  }
  /// A desktop on nc1, started. Returns its task id.
  std::string start() {
    NewVm request;
    request.imgid = imgid_;
    request.kind = "TVD";
    request.memory_mib = 512;
    request.node = "nc1";
    const auto vm = cloud->define_vm(admin, request);
    EXPECT_TRUE(vm) << vm.error().message;
    settle();
    EXPECT_EQ(last().op, "image/prepare");
    return vm->task->task.tid;
  }
  /// The same with its image on the node: it wants to boot.
  std::string ready() {
    const auto tid = start();
    say(Event::prepared);
    return tid;
  }
  /// What was sent since the last call, but for image/prepare.
  std::string sent() {
    std::string all = ops() + " ", out;
    for (std::size_t end; (end = all.find(' ')) != std::string::npos; all.erase(0, end + 1)) {
      const auto op = all.substr(0, end);
      if (!op.empty() && op != "image/prepare") out += (out.empty() ? "" : " ") + op;
    }
    return out;
  }
  /// The last command of that task.
  const msg::Command& command_of(const std::string& tid) {
    settle();
    const auto at =
        std::find_if(commands.rbegin(), commands.rend(), [&](const auto& one) { return one.tid == tid; });
    return *at;
  }
  void say_of(const std::string& tid, Event event, const std::string& errormsg = "") {
    auto status = answer(command_of(tid), event);
    status.errormsg = errormsg;
    tell(status);
  }
  /// "2/3": its place in the queue.
  std::string place(const std::string& tid) {
    const auto view = cloud->task(admin, tid);
    return std::to_string(view->queue_place) + "/" + std::to_string(view->queue_length);
  }
  void SetUp() override {
    CloudTest::SetUp();
    imgid_ = import("debian");
  }
  std::int64_t slot_ms = 30'000;
  std::string imgid_;
};

TEST_F(BootGateFlow, TheOldestBootsWhenOneBeforeItRuns) {
  const auto first = ready(), second = ready(), third = ready(), fourth = ready();
  EXPECT_EQ(sent(), "image/run image/run");
  EXPECT_EQ(place(first), "0/0");
  EXPECT_EQ(place(third), "1/2");
  EXPECT_EQ(place(fourth), "2/2");
  const auto view = cloud->task(admin, fourth);
  EXPECT_EQ(view->queue_reason, "place 2 of 2 in the boot queue of nc1: at most 2 boot there at once");
  EXPECT_EQ(at(fourth), "preparing/done");
  EXPECT_EQ(command_of(fourth).op, "image/prepare");
  say_of(first, Event::booting);
  EXPECT_EQ(sent(), "") << "it boots still";
  say_of(first, Event::running);
  EXPECT_EQ(sent(), "image/run");
  EXPECT_EQ(last().tid, third);
  EXPECT_EQ(place(fourth), "1/1");
  say_of(second, Event::failed, "no such machine type");
  EXPECT_EQ(sent(), "image/run");
  EXPECT_EQ(last().tid, fourth);
  for (const auto& tid : {third, fourth}) say_of(tid, Event::running);
  EXPECT_EQ(at(third) + at(fourth), "editing/running+editing/running+");
}

TEST_F(BootGateFlow, AnotherNodeHasAGateOfItsOwn) {
  ready(), ready(), ready();
  EXPECT_EQ(sent(), "image/run image/run");
  NewVm request;
  request.imgid = imgid_;
  request.kind = "TVD";
  request.node = "nc2";
  ASSERT_TRUE(cloud->define_vm(admin, request));
  settle();
  say(Event::prepared);
  EXPECT_EQ(sent(), "image/run");
  EXPECT_EQ(last().nid, "nc2");
}

TEST_F(BootGateFlow, VmsThatDoNotComeUpHoldNobodyUp) {
  ready(), ready();
  const auto third = ready(), fourth = ready();
  EXPECT_EQ(sent(), "image/run image/run");
  advance(29);
  EXPECT_EQ(command_of(third).op, "image/prepare");
  advance(2);  // the two get their commands again, which takes no slots
  EXPECT_EQ(command_of(third).op, "image/run");
  EXPECT_EQ(command_of(fourth).op, "image/run");
  EXPECT_EQ(place(fourth), "0/0");
}

TEST_F(BootGateFlow, WhoeverIsCancelledLeavesTheQueue) {
  ready(), ready();
  const auto third = ready(), fourth = ready();
  sent();
  ASSERT_TRUE(cloud->cancel_task(admin, third));
  EXPECT_EQ(sent(), "task/delete");
  EXPECT_EQ(place(third), "0/0");
  EXPECT_EQ(place(fourth), "1/1");
  say_of(third, Event::deleted);
  EXPECT_EQ(at(third), "submitting/gone");
  EXPECT_EQ(sent(), "") << "no slot came free";
}

TEST_F(BootGateFlow, SurvivesAnEndOfClc) {
  const auto first = ready();
  ready();
  const auto third = ready();
  sent();
  halt();
  boot();
  beat();
  EXPECT_EQ(place(third), "1/1");
  say_of(first, Event::running);
  EXPECT_EQ(sent(), "image/run");
  EXPECT_EQ(last().tid, third);
}

TEST_F(BootGateFlow, ARepeatedStatusAndAnEndingNodeDoNotOpenIt) {
  ready(), ready();
  const auto third = ready();
  sent();
  const auto& prepare = command_of(third);
  tell(answer(prepare, Event::prepared));
  EXPECT_EQ(sent(), "");
  EXPECT_EQ(place(third), "1/1");
  say_of(third, Event::failed, "its disk broke meanwhile");
  EXPECT_EQ(at(third), "editing/stopped!");
  EXPECT_EQ(place(third), "0/0");
}

class LongBoots : public BootGateFlow {
 protected:
  void tune(CloudOptions& options) override {
    BootGateFlow::tune(options);
    options.gate.slot_ms = 7'200'000;
  }
};

TEST_F(LongBoots, WaitingHasAnEnd) {
  const auto first = ready(), second = ready(), third = ready();
  sent();
  for (const auto& tid : {first, second}) say_of(tid, Event::booting);
  for (int minute = 0; minute < 30; minute += 5) {
    EXPECT_EQ(place(third), "1/1") << minute;
    advance(300);
    for (const auto& tid : {first, second}) say_of(tid, Event::booting);
  }
  EXPECT_EQ(at(third), "editing/stopped!");
  EXPECT_THAT(cloud->task(admin, third)->task.errormsg, HasSubstr("30 min in the boot queue of nc1"));
  EXPECT_EQ(place(third), "0/0");
  EXPECT_EQ(command_of(third).op, "image/prepare") << "nothing was started, nothing is stopped";
}

}  // namespace
}  // namespace educloud::clc
