// What is told of a server that ended because its node had no lease.
#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

constexpr const char* kServer = "IMG00000001:IMG00000001:VS0000beef";

class FenceTest : public NodeTest {
 protected:
  msg::Command server(const std::string& op) {
    auto made = command(op, kServer);
    made.epoch = ++epoch_;
    made.database = msg::ImageVersion{"IMG000000db", 2, std::string(64, 'b'), 1000, 1 << 20, "raw"};
    made.database_grant = "d";
    made.database_source_grant = "s";
    made.runtime_option->disks = {{"images/IMG00000001/machine", "multiattach"},
                                  {"space/database/instances/VS0000beef/database", "writethrough"}};
    return made;
  }
  void up() {
    ASSERT_EQ(ask(server("image/prepare")).event, "prepared") << told_.back().errormsg;
    ASSERT_EQ(ask(server("image/run")).event, "running") << told_.back().errormsg;
  }
  /// As clc sends it: without the disk.
  msg::TaskStatus operate(const std::string& op) {
    auto made = command(op, kServer);
    made.epoch = epoch_;
    return ask(made);
  }
  msg::TaskStatus end() {
    told_.clear();
    hypervisor_.end(vm(kServer), VmEvent::Kind::stopped);
    work();
    return told_.empty() ? msg::TaskStatus{} : told_.back();
  }
  std::int64_t epoch_ = 0;
};

TEST_F(FenceTest, OneThatEndsForWantOfALeaseIsLost) {
  up();
  fenced_ = true;
  const auto lost = end();
  EXPECT_EQ(lost.event, "lost");
  EXPECT_EQ(lost.state, "stopped");
  EXPECT_EQ(lost.final, 1);
  EXPECT_THAT(lost.errormsg, ::testing::HasSubstr("nothing of clc"));
  up();
  EXPECT_EQ(end().event, "stopped") << "its guest did that";
}

TEST_F(FenceTest, AlsoIfTheLastCommandWasAboutSomethingElse) {
  up();
  ASSERT_EQ(operate("instance/pause").event, "paused");
  ASSERT_EQ(operate("instance/resume").event, "running");
  fenced_ = true;
  EXPECT_EQ(end().event, "lost");
  up();
  fenced_ = true;
  hypervisor_.end(vm(kServer), VmEvent::Kind::stopped, true);
  const auto lost = operate("instance/pause");
  EXPECT_EQ(lost.event, "lost") << "the operation hid the news";
  EXPECT_EQ(lost.final, 1);
  EXPECT_THAT(lost.errormsg, ::testing::HasSubstr("nothing of clc"));
}

TEST_F(FenceTest, WhatEndedTheOneBeforeIsForgottenWithTheNextStart) {
  up();
  fenced_ = true;
  ASSERT_EQ(ask(server("image/stop")).event, "stopped");
  up();
  EXPECT_EQ(end().event, "stopped");
}

}  // namespace
}  // namespace educloud::nc
