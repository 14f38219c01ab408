#include <fstream>

#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

constexpr const char* kServer = "IMG00000001:IMG00000001:VS0000beef";
constexpr const char* kName = "VS0000beef";

/// A server whose database disk is a copy on the node.
class LocalDatabase : public NodeTest {
 protected:
  msg::Command server(const std::string& op) {
    auto made = command(op, kServer);
    made.epoch = epoch_;
    made.database = msg::ImageVersion{"IMG000000db", 2, std::string(64, 'e'), 10, 1 << 20, "raw"};
    made.database_mode = mode_;
    made.database_grant = "g" + std::to_string(epoch_);
    made.database_source_grant = "s";
    made.runtime_option->disks = {{"images/IMG00000001/machine", "multiattach"},
                                  {"space/database/instances/VS0000beef/database", "writethrough"}};
    return made;
  }
  void up() {
    ASSERT_EQ(ask(server("image/prepare")).event, "prepared") << told_.back().errormsg;
    ASSERT_EQ(ask(server("image/run")).event, "running") << told_.back().errormsg;
  }
  void write(const std::string& text) { std::ofstream(file()) << text; }
  std::filesystem::path file() const { return vm_folder(kServer) / "database"; }
  std::filesystem::path ticket() const { return vm_folder(kServer) / "database.json"; }
  static std::string text_of(const std::filesystem::path& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::string master() { return disks_.masters[kName].text; }

  std::int64_t epoch_ = 1;
  std::string mode_ = "copy";
};

TEST_F(LocalDatabase, IsFetchedBeforeTheStartAndGivenBackBeforeItIsStopped) {
  ASSERT_EQ(ask(server("image/prepare")).event, "prepared") << told_.back().errormsg;
  EXPECT_EQ(text_of(file()), "made");
  EXPECT_FALSE(disks_.masters[kName].is_out) << "its guest has written nothing";
  ASSERT_EQ(ask(server("image/run")).event, "running") << told_.back().errormsg;
  EXPECT_TRUE(disks_.masters[kName].is_out);
  EXPECT_EQ(disks_.fetches, 1);
  const auto spec = hypervisor_.spec(vm(kServer));
  ASSERT_TRUE(spec);
  EXPECT_EQ(spec->extra.at(0).layers, (std::vector<DiskLayer>{{file(), "raw"}}));
  EXPECT_FALSE(spec->extra.at(0).iscsi);
  EXPECT_EQ(told_.back().errormsg, "");
  write("row");
  ASSERT_EQ(ask(server("image/stop")).event, "stopped") << told_.back().errormsg;
  EXPECT_THAT(told_.front().prompt, HasSubstr("giving the database disk back"));
  EXPECT_EQ(told_.front().state, "running");
  EXPECT_EQ(master(), "row");
  EXPECT_FALSE(disks_.is_open(kName));
  EXPECT_FALSE(std::filesystem::exists(file()));
  EXPECT_FALSE(std::filesystem::exists(ticket()));
}

TEST_F(LocalDatabase, IsNotStoppedWhileTheCcIsAway) {
  up();
  write("row");
  disks_.away = 3;
  ASSERT_EQ(ask(server("image/stop")).event, "stopped") << told_.back().errormsg;
  EXPECT_EQ(master(), "row");

  // And told so meanwhile, with VMs of others stopped all the same: the lane of machines is free.
  up();
  write("row two");
  disks_.away = 1'000'000;
  told_.clear();
  send(server("image/stop"));
  while (node_->run_one(Lane::machines)) continue;
  EXPECT_FALSE(hypervisor_.state(vm(kServer)));
  broker_.deliver_all();
  EXPECT_TRUE(told_.empty()) << told_.back().event;
  boot();  // killed meanwhile: begun again
  disks_.away = 1;
  work();
  ASSERT_FALSE(told_.empty());
  EXPECT_EQ(told_.back().event, "stopped") << told_.back().errormsg;
  EXPECT_EQ(master(), "row two");
}

TEST_F(LocalDatabase, AnEndByItselfIsToldWhenItIsBack) {
  up();
  write("row");
  told_.clear();
  hypervisor_.end(vm(kServer), VmEvent::Kind::stopped);
  work();
  EXPECT_EQ(events().back(), "stopped");
  EXPECT_EQ(master(), "row");
  EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(LocalDatabase, AfterARestartOfTheHostTheCopyGoesOn) {
  up();
  write("row");
  hypervisor_.end(vm(kServer), VmEvent::Kind::crashed, true);
  boot();
  ++epoch_;
  up();
  EXPECT_EQ(disks_.fetches, 1) << "what the cc has is older";
  EXPECT_EQ(text_of(file()), "row");
  // With no order to start it again it goes back.
  hypervisor_.end(vm(kServer), VmEvent::Kind::crashed, true);
  boot();
  node_->reconcile();
  clock_.advance(std::chrono::seconds{5});
  node_->reconcile();
  work();
  EXPECT_EQ(master(), "row");
  EXPECT_EQ(told_.back().state, "stopped");
}

TEST_F(LocalDatabase, OneThatAnotherNodeHasOutdoneIsSetAside) {
  up();
  write("row");
  hypervisor_.end(vm(kServer), VmEvent::Kind::crashed, true);
  disks_.disks[kName].epoch = 9;  // it was lost, and its server began elsewhere
  disks_.masters[kName].copy = "00000000000000ff";
  auto farewell = server("task/delete");
  farewell.database_grant.clear();
  ASSERT_EQ(ask(farewell).event, "deleted") << told_.back().errormsg;
  EXPECT_FALSE(std::filesystem::exists(vm_folder(kServer)));
  EXPECT_EQ(text_of(prefix_ / "lost/VS0000beef-1.raw"), "row");
  EXPECT_EQ(master(), "made");

  // Once more: nothing is overwritten.
  epoch_ = 1;
  disks_.disks.clear();
  disks_.masters.clear();
  up();
  write("other");
  disks_.disks[kName].epoch = 9;
  ASSERT_EQ(ask(server("image/stop")).event, "stopped") << told_.back().errormsg;
  EXPECT_EQ(text_of(prefix_ / "lost/VS0000beef-1.raw"), "row");
  EXPECT_EQ(text_of(prefix_ / "lost/VS0000beef-1.2.raw"), "other");
}

TEST_F(LocalDatabase, AFarewellGivesBackWhatStillCounts) {
  up();
  write("row");
  auto farewell = server("task/delete");
  farewell.database_grant.clear();
  ASSERT_EQ(ask(farewell).event, "deleted") << told_.back().errormsg;
  EXPECT_EQ(events(), std::vector<std::string>{"deleted"});
  EXPECT_EQ(master(), "row");
  EXPECT_FALSE(std::filesystem::exists(prefix_ / "lost"));
}

TEST_F(LocalDatabase, AnotherWayBeginsWithWhatIsGivenBack) {
  up();
  write("row");
  hypervisor_.end(vm(kServer), VmEvent::Kind::crashed, true);
  boot();
  ++epoch_;
  mode_ = "iscsi";
  disks_.masters[kName].is_out = true;
  ASSERT_EQ(ask(server("image/prepare")).event, "prepared") << told_.back().errormsg;
  EXPECT_EQ(master(), "row");
  EXPECT_FALSE(std::filesystem::exists(file()));
  ASSERT_EQ(ask(server("image/run")).event, "running") << told_.back().errormsg;
  EXPECT_TRUE(hypervisor_.spec(vm(kServer))->extra.at(0).iscsi);
}

TEST_F(LocalDatabase, ALostNodesRowsAreMissed) {
  disks_.left = "nc7";
  up();
  EXPECT_THAT(told_.back().errormsg, HasSubstr("node nc7"));
  EXPECT_EQ(told_.back().failed, 0);
  EXPECT_EQ(told_.back().event, "running");
}

TEST_F(LocalDatabase, ATicketThatCannotBeReadCostsNoData) {
  up();
  write("row");
  std::ofstream(ticket()) << "{";
  EXPECT_EQ(ask(server("image/stop")).event, "stopped") << told_.back().errormsg;
  EXPECT_EQ(text_of(prefix_ / "lost/VS0000beef-0.raw"), "row");
}

TEST_F(LocalDatabase, ARestoreThatEndsItsVmGivesItBackFirst) {
  up();
  write("row");
  // Killed when it had been switched off for it; and it cannot be switched on again.
  hypervisor_.end(vm(kServer), VmEvent::Kind::stopped, true);
  std::ofstream(Layout(prefix_).recipe(vm(kServer))) << "of no hypervisor";
  auto restore = server("snapshot/restore");
  restore.snapshot = "snap-00000001";
  const auto told = ask(restore);
  EXPECT_EQ(told.state, "stopped") << told.event;
  EXPECT_NE(told.errormsg, "");
  EXPECT_EQ(master(), "row");
  EXPECT_FALSE(disks_.masters[kName].is_out);
  EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(LocalDatabase, AStartThatFailsKeepsNobodyWaiting) {
  hypervisor_.fail_next_start({ErrorCode::internal, "no such machine", {}});
  ASSERT_EQ(ask(server("image/prepare")).event, "prepared") << told_.back().errormsg;
  ASSERT_EQ(ask(server("image/run")).event, "failed");
  EXPECT_FALSE(disks_.masters[kName].is_out);
  EXPECT_FALSE(disks_.is_open(kName));
  EXPECT_FALSE(std::filesystem::exists(ticket()));
  up();
  EXPECT_EQ(text_of(file()), "made");
}

TEST_F(LocalDatabase, AnotherCopyThanBeforeIsNewerToo) {
  disks_.forgets = true;
  up();
  EXPECT_EQ(disks_.fetches, 2);
  write("row");
  ASSERT_EQ(ask(server("image/stop")).event, "stopped") << told_.back().errormsg;
  EXPECT_EQ(master(), "row");
}

TEST_F(LocalDatabase, WhatTheCcTakesForNewerIsNotDeleted) {
  up();
  write("row");
  // What was known of it here is lost.
  auto text = text_of(ticket());
  const auto at = text.find("\"newer\":1");
  ASSERT_NE(at, std::string::npos) << text;
  std::ofstream(ticket()) << text.replace(at, 9, "\"newer\":0");
  auto farewell = server("task/delete");
  farewell.database_grant.clear();
  ASSERT_EQ(ask(farewell).event, "deleted") << told_.back().errormsg;
  EXPECT_EQ(master(), "row");
  EXPECT_FALSE(std::filesystem::exists(vm_folder(kServer)));
}

TEST_F(LocalDatabase, AnotherWayWaitsForAVmThatRuns) {
  up();
  write("row");
  mode_ = "iscsi";
  EXPECT_EQ(ask(server("image/prepare")).event, "failed");
  EXPECT_THAT(told_.back().errormsg, HasSubstr("stop it first"));
  EXPECT_EQ(text_of(file()), "row");
  EXPECT_EQ(master(), "made") << "half of what its guest writes";
  mode_ = "copy";
  ASSERT_EQ(ask(server("image/stop")).event, "stopped") << told_.back().errormsg;
  EXPECT_EQ(master(), "row");
}

TEST_F(LocalDatabase, ANodeThatLostItsOwnCopySaysSo) {
  up();
  write("row");
  hypervisor_.end(vm(kServer), VmEvent::Kind::crashed, true);
  std::filesystem::remove_all(vm_folder(kServer));  // the node was installed anew
  boot();
  ++epoch_;
  up();
  EXPECT_THAT(told_.back().errormsg, HasSubstr("copy"));
  EXPECT_EQ(told_.back().failed, 0);
  ASSERT_EQ(ask(server("image/stop")).event, "stopped") << told_.back().errormsg;
  up();
  EXPECT_EQ(told_.back().errormsg, "");
}

TEST_F(LocalDatabase, AVmThatArrivesDoesNotHideOne) {
  const DatabaseTicket kept{1, "g1", {}, 0, "00000000000000c1", 1, {}};
  ASSERT_TRUE(write_ticket(Layout(prefix_), vm(kServer), kept));
  write("row");
  ++epoch_;
  mode_ = "iscsi";
  auto taken = node_->operations().receive(server("image/run"), [](auto, auto) {}, {});
  ASSERT_FALSE(taken);
  EXPECT_THAT(taken.error().message, HasSubstr("to give back"));
  auto ticket = read_ticket(Layout(prefix_), vm(kServer));
  ASSERT_TRUE(ticket && *ticket);
  EXPECT_EQ((*ticket)->newer, 1);
}

TEST_F(LocalDatabase, AServerWithOneStaysWhereItIs) {
  up();
  auto move = server("instance/migrate");
  move.move = msg::Move{"nc2", "10.0.0.2", 8093, "g", "s", 5901, 8081, "g"};
  const auto told = ask(move);
  EXPECT_EQ(told.event, "refused");
  EXPECT_THAT(told.errormsg, HasSubstr("start it elsewhere"));
  EXPECT_EQ(told.state, "running");
}

}  // namespace
}  // namespace educloud::nc
