#include "support/temp_dir.hpp"
#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

constexpr const char* kServer = "IMG00000001:IMG00000001:VS0000beef";

class DatabaseTest : public NodeTest {
 protected:
  msg::Command server(const std::string& op, const std::string& tid = kServer) {
    auto made = command(op, tid);
    made.epoch = epoch_;
    made.database = msg::ImageVersion{"IMG000000db", 2, std::string(64, 'e'), 10, 1 << 20, "raw"};
    made.database_grant = "g" + std::to_string(epoch_);
    made.database_source_grant = "s";
    auto& disks = made.runtime_option->disks;
    if (tid == kServer) {
      disks = {{"images/IMG00000001/machine", "multiattach"},
               {"space/database/instances/VS0000beef/database", "writethrough"}};
    } else if (tid == kModify) {
      disks = {{"images/IMG00000001/machine", "normal"},
               {"space/database/images/IMG00000001/database", "normal"},
               {"images/data", "multiattach"}};
    } else {
      disks = {{"tmp/images/IMG00000002/machine", "normal"},
               {"space/database/tmp/images/IMG00000002/database", "normal"},
               {"images/data", "multiattach"}};
    }
    return made;
  }
  msg::Command submit_of(const std::string& tid) {
    auto made = server("image/submit", tid);
    made.database_target_imgid = "IMG000000dc";
    made.database_target_version = 3;
    made.database_target_grant = "t";
    return made;
  }
  void up(const std::string& tid = kServer) {
    ASSERT_EQ(ask(server("image/prepare", tid)).event, "prepared") << told_.back().errormsg;
    ASSERT_EQ(ask(server("image/run", tid)).event, "running") << told_.back().errormsg;
  }
  std::filesystem::path ticket(const std::string& tid = kServer) const {
    return vm_folder(tid) / "database.json";
  }
  std::int64_t epoch_ = 1;
};

TEST_F(DatabaseTest, IsMadeBeforeTheFirstStartAndAttachedAtIt) {
  const auto prepared = ask(server("image/prepare"));
  ASSERT_EQ(prepared.event, "prepared") << prepared.errormsg;
  EXPECT_THAT(events(), Contains("cloning"));
  EXPECT_EQ(disks_.opens, 1);
  ASSERT_EQ(ask(server("image/run")).event, "running") << told_.back().errormsg;
  const auto spec = hypervisor_.spec(vm(kServer));
  ASSERT_TRUE(spec);
  EXPECT_TRUE(spec->exclusive);
  ASSERT_EQ(spec->extra.size(), 1u);
  ASSERT_TRUE(spec->extra[0].iscsi);
  EXPECT_EQ(spec->extra[0].iscsi->iqn, "iqn.2026-11.educloud:VS0000beef");
  EXPECT_EQ(hypervisor_.disk_secrets().at("VS0000beef"), "secret1");
  EXPECT_EQ(disks_.last->source.imgid, "IMG000000db");
  EXPECT_EQ(disks_.last->build_imgid, "");
  struct stat status {};
  ASSERT_EQ(::stat(ticket().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(DatabaseTest, AStopClosesItAndThrowsOnlyTheOverlayAway) {
  up();
  ASSERT_EQ(ask(server("image/stop")).event, "stopped");
  EXPECT_FALSE(disks_.is_open("VS0000beef"));
  EXPECT_TRUE(disks_.disks.contains("VS0000beef"));
  EXPECT_TRUE(hypervisor_.disk_secrets().empty());
  EXPECT_FALSE(std::filesystem::exists(ticket()));
  EXPECT_FALSE(std::filesystem::exists(overlay(kServer)));
  ASSERT_EQ(ask(server("image/run")).event, "running");
  EXPECT_TRUE(disks_.is_open("VS0000beef"));
}

TEST_F(DatabaseTest, AnEndByItselfClosesItWithTheLeaveOfTheStart) {
  up();
  auto pause = command("instance/pause", kServer);
  pause.epoch = epoch_;
  ASSERT_EQ(ask(pause).event, "paused");
  hypervisor_.end(vm(kServer), VmEvent::Kind::crashed);
  work();
  EXPECT_EQ(told_.back().event, "failed");
  EXPECT_FALSE(disks_.is_open("VS0000beef"));
  EXPECT_EQ(disks_.last_close->grant, "g1");
}

TEST_F(DatabaseTest, AVmThatCameFromAnotherNodeIsGivenLeaveToCloseItsDisk) {
  up();
  const auto grant = [&] { return nlohmann::json::parse(testing::slurp(ticket()))["grant"]; };
  auto came = nlohmann::json::parse(testing::slurp(ticket()));
  came["grant"] = "for the move alone";
  came["joining"] = 1;
  std::ofstream(ticket()) << came.dump();
  EXPECT_EQ(ask(server("image/run")).event, "running");
  EXPECT_EQ(grant(), "for the move alone") << "the other node has it still";
  came["joining"] = 0;
  std::ofstream(ticket()) << came.dump();
  EXPECT_EQ(ask(server("image/run")).event, "running");
  EXPECT_EQ(grant(), "g1");
  EXPECT_EQ(disks_.opens, 2) << "and nothing was opened anew";
}

TEST_F(DatabaseTest, AStopIsToldThoughTheCcIsAwayAndTheNextCommandCloses) {
  up();
  disks_.error = Error{ErrorCode::unavailable, "the cc is away", {}};
  ASSERT_EQ(ask(server("image/stop")).event, "stopped");
  EXPECT_TRUE(std::filesystem::exists(ticket())) << "so that somebody closes it";
  const auto failed = ask(server("image/run"));
  EXPECT_EQ(failed.failed, 1);
  EXPECT_THAT(failed.errormsg, HasSubstr("the cc is away"));
  EXPECT_EQ(hypervisor_.starts(), 1);
  disks_.error.reset();
  EXPECT_EQ(ask(server("image/run")).event, "running");
}

TEST_F(DatabaseTest, AFailedStartClosesIt) {
  ASSERT_EQ(ask(server("image/prepare")).event, "prepared");
  hypervisor_.fail_next_start({ErrorCode::unavailable, "no QEMU", {}});
  EXPECT_EQ(ask(server("image/run")).failed, 1);
  EXPECT_FALSE(disks_.is_open("VS0000beef"));
}

TEST_F(DatabaseTest, AHigherEpochElsewhereKeepsItFromStarting) {
  ASSERT_EQ(ask(server("image/prepare")).event, "prepared");
  disks_.disks["VS0000beef"] = {5, true};
  const auto refused = ask(server("image/run"));
  EXPECT_EQ(refused.failed, 1);
  EXPECT_EQ(hypervisor_.starts(), 0);
  EXPECT_TRUE(disks_.is_open("VS0000beef")) << "the successor's";
}

TEST_F(DatabaseTest, OnlyADeleteWithLeaveDeletesIt) {
  up();
  auto farewell = command("task/delete", kServer);
  farewell.epoch = epoch_;
  ASSERT_EQ(ask(farewell).event, "deleted");
  EXPECT_TRUE(disks_.disks.contains("VS0000beef"));
  EXPECT_FALSE(disks_.is_open("VS0000beef"));
  EXPECT_FALSE(std::filesystem::exists(vm_folder(kServer)));
  up();
  disks_.error = Error{ErrorCode::unavailable, "the cc is away", {}};
  const auto failed = ask(server("task/delete"));
  EXPECT_EQ(failed.failed, 1) << "clc asks again";
  disks_.error.reset();
  ASSERT_EQ(ask(server("task/delete")).event, "deleted");
  EXPECT_TRUE(disks_.disks.empty());
  EXPECT_TRUE(hypervisor_.disk_secrets().empty());
}

TEST_F(DatabaseTest, ASubmitBringsTwoReceipts) {
  up(kModify);
  ASSERT_EQ(ask(server("image/stop", kModify)).event, "stopped");
  const auto done = ask(submit_of(kModify));
  ASSERT_EQ(done.event, "submitted") << done.errormsg;
  EXPECT_EQ(done.receipt, "receipt");
  EXPECT_EQ(done.database_receipt, "receipt of the database disk");
  ASSERT_EQ(disks_.submits.size(), 1u);
  EXPECT_EQ(disks_.submits[0].imgid, "IMG000000dc");
  EXPECT_EQ(disks_.submits[0].version, 3);
  EXPECT_EQ(disks_.submits[0].grant, "t");
  EXPECT_EQ(disks_.submits[0].parent, "IMG000000db/2");
  EXPECT_EQ(disks_.submits[0].cmdid, done.cmdid);
}

TEST_F(DatabaseTest, ASubmitWithoutLeaveForTheDiskPublishesNothing) {
  up(kModify);
  ASSERT_EQ(ask(server("image/stop", kModify)).event, "stopped");
  for (auto spoil : {+[](msg::Command& c) { c.database_target_grant.clear(); },
                     +[](msg::Command& c) { c.database_target_version = 0; },
                     +[](msg::Command& c) { c.database_grant.clear(); },
                     +[](msg::Command& c) { c.database_target_imgid = "../x"; }}) {
    auto made = submit_of(kModify);
    spoil(made);
    EXPECT_EQ(ask(made).failed, 1);
  }
  EXPECT_TRUE(images_->submits.empty());
}

TEST_F(DatabaseTest, ABuildsDiskIsNamedAfterItsImage) {
  up(kBuild);
  EXPECT_EQ(disks_.last->build_imgid, "IMG00000002");
  ASSERT_EQ(ask(server("image/stop", kBuild)).event, "stopped");
  ASSERT_EQ(ask(submit_of(kBuild)).event, "submitted") << told_.back().errormsg;
  EXPECT_EQ(disks_.submits.size(), 1u);
}

TEST_F(DatabaseTest, TheScratchDiskIsNewAtEachStart) {
  up(kModify);
  const auto spec = hypervisor_.spec(vm(kModify));
  ASSERT_TRUE(spec);
  ASSERT_EQ(spec->extra.size(), 2u);
  EXPECT_EQ(spec->extra[0].kind, ExtraDisk::Kind::database);
  const auto scratch = vm_folder(kModify) / "data.qcow2", base = prefix_ / "images/data";
  EXPECT_EQ(spec->extra[1].layers, (std::vector<DiskLayer>{{scratch, "qcow2"}, {base, "raw"}}));
  EXPECT_EQ(std::filesystem::file_size(base), 1u << 30);
  ASSERT_TRUE(std::filesystem::exists(scratch));
  ASSERT_EQ(ask(server("image/stop", kModify)).event, "stopped");
  EXPECT_FALSE(std::filesystem::exists(scratch));
  EXPECT_TRUE(std::filesystem::exists(overlay(kModify)));
  // What a kill left of an earlier run is no hindrance.
  std::ofstream(scratch) << "old";
  ASSERT_EQ(ask(server("image/run", kModify)).event, "running") << told_.back().errormsg;
  EXPECT_EQ(std::filesystem::file_size(scratch) == 3, false);
}

TEST_F(DatabaseTest, SnapshotsLeaveItOut) {
  up(kModify);
  auto take = command("snapshot/take", kModify);
  take.epoch = epoch_;
  take.snapshot = "snap-00000001";
  take.with_memory = 1;
  const auto refused = ask(take);
  EXPECT_EQ(refused.event, "refused");
  EXPECT_THAT(refused.errormsg, HasSubstr("database disk"));
  take = command("snapshot/take", kModify);
  take.epoch = epoch_;
  take.snapshot = "snap-00000001";
  const auto taken = ask(take);
  EXPECT_EQ(taken.failed, 0) << taken.errormsg;
  EXPECT_THAT(taken.prompt, HasSubstr("not of the database disk"));
}

TEST_F(DatabaseTest, AKillBetweenOpenAndStartIsFinishedByTheNextProcess) {
  ASSERT_EQ(ask(server("image/prepare")).event, "prepared");
  send(server("image/run"));
  boot();
  work();
  ASSERT_FALSE(told_.empty());
  EXPECT_EQ(told_.back().event, "running");
  boot();
  hypervisor_.end(vm(kServer), VmEvent::Kind::stopped, true);
  node_->reconcile();
  clock_.advance(std::chrono::seconds{2});
  node_->reconcile();
  work();
  EXPECT_FALSE(disks_.is_open("VS0000beef"));
}

}  // namespace
}  // namespace educloud::nc
