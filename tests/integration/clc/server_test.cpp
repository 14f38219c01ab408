#include "integration/clc/server_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Servers : public ServerTest {};

TEST_F(Servers, AServerRunsWithItsDisk) {
  const auto imgid = import_server("wiki");
  const auto insid = define(imgid, "VS");
  auto vm = cloud->vm(admin, insid);
  EXPECT_EQ(vm->instance.vmtype, "vssmall");
  EXPECT_TRUE(vm->instance.autostart);
  EXPECT_EQ(vm->folder_protocol, "virtiofs");
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ASSERT_EQ(ops(), "image/prepare");
  const auto prepare = last();
  EXPECT_THAT(disks(prepare),
              testing::ElementsAre("images/" + imgid + "/machine multiattach",
                                   "space/database/instances/" + insid + "/database writethrough"));
  EXPECT_THAT(folders(prepare), testing::ElementsAre("f space/software ro"));
  ASSERT_TRUE(prepare.database);
  EXPECT_EQ(prepare.database->imgid, database_of(imgid));
  EXPECT_EQ(prepare.database->version, 1);
  EXPECT_EQ(prepare.database->digest, std::string(64, 'd'));
  EXPECT_EQ(prepare.database->disk_bytes, 100 << 20);
  EXPECT_EQ(prepare.database_mode, "iscsi");
  const std::string epoch = std::to_string(prepare.epoch);
  const auto now_s = clock.wall_ms() / 1000;
  const auto query = [](const std::string& grant) { return http::parse_target("/?" + grant)->query; };
  EXPECT_EQ(transfer::verify_grant(kKey, "PUT", "/disks/" + insid + "/" + epoch,
                                   query(prepare.database_grant), now_s),
            prepare.nid);
  EXPECT_EQ(transfer::verify_grant(kKey, "GET", transfer::version_path(database_of(imgid), 1),
                                   query(prepare.database_source_grant), now_s),
            prepare.nid);
  EXPECT_EQ(cloud->vm(admin, insid)->instance.disk_cluster, "");
  say(Event::prepared);
  EXPECT_EQ(cloud->vm(admin, insid)->instance.disk_cluster, "cc1");
  ASSERT_EQ(ops(), "image/run");
  EXPECT_EQ(last().database->version, 1);
  EXPECT_FALSE(last().database_grant.empty());
  say(Event::running);
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  ASSERT_EQ(ops(), "image/stop");
  EXPECT_FALSE(last().database_grant.empty()) << "to close it";
  say(Event::stopped);
  EXPECT_EQ(cloud->vm(admin, insid)->state, "stopped");
}

TEST_F(Servers, OnlyTheDeletionOfAServerTakesItsDisk) {
  const auto imgid = import_server("wiki");
  const auto insid = run_server(imgid);
  const auto tid = imgid + ":" + imgid + ":" + insid;
  ASSERT_TRUE(cloud->cancel_task(admin, tid));
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_EQ(last().database_grant, "");
  say(Event::deleted);
  EXPECT_EQ(cloud->vm(admin, insid)->state, "defined");
  // With no task: some node of its cluster has its disk removed.
  const auto gone = cloud->delete_vm(admin, insid);
  ASSERT_TRUE(gone) << gone.error().message;
  EXPECT_EQ(gone->state, "deleting");
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_FALSE(last().database_grant.empty());
  EXPECT_EQ(cloud->vm(admin, insid)->state, "deleting");
  say(Event::failed, "cc1 does not answer");
  advance(120);
  EXPECT_EQ(ops(), "task/delete") << "asked again until it is done";
  say(Event::deleted);
  EXPECT_EQ(cloud->vm(admin, insid).error().code, ErrorCode::not_found);
}

TEST_F(Servers, AServerThatStoppedIsDeletedByItsNode) {
  const auto insid = run_server(import_server("wiki"));
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(cloud->delete_vm(admin, insid));
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_FALSE(last().database_grant.empty());
  say(Event::deleted);
  EXPECT_FALSE(cloud->vm(admin, insid));
}

TEST_F(Servers, OneThatNeverRanHasNoDisk) {
  const auto insid = define(import_server("wiki"), "VS");
  const auto gone = cloud->delete_vm(admin, insid);
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->state, "deleted");
  EXPECT_EQ(ops(), "");
}

TEST_F(Servers, ALostNodesServerGoesOnUnderAHigherEpoch) {
  const auto insid = run_server(import_server("wiki"));
  const auto first = last();
  (first.nid == "nc1" ? nc1_beats : nc2_beats) = false;
  advance(60);
  const auto tid = first.tid;
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    auto& engine = cloud->impl().engine;
    if (auto ok = engine.lose_node(sql, first.nid); !ok) return ok;
    return engine.relocate(sql, *store::open_task(sql, tid), false).map([](bool done) { EXPECT_TRUE(done); });
  }));
  EXPECT_EQ(ops(), "task/delete image/prepare");
  const auto& prepare = *std::find_if(commands.rbegin(), commands.rend(),
                                      [](const auto& one) { return one.op == "image/prepare"; });
  const auto& farewell = *std::find_if(commands.rbegin(), commands.rend(),
                                       [](const auto& one) { return one.op == "task/delete"; });
  EXPECT_NE(prepare.nid, first.nid);
  EXPECT_GT(prepare.epoch, first.epoch);
  EXPECT_THAT(prepare.database_grant, HasSubstr("node=" + prepare.nid));
  EXPECT_TRUE(first.database_lost.empty());
  EXPECT_EQ(prepare.database_lost, std::vector{first.nid}) << "a newer copy there is not waited for";
  EXPECT_EQ(farewell.nid, first.nid);
  EXPECT_EQ(farewell.database_grant, "") << "it must not remove its successor's disk";
}

TEST_F(Servers, AFailedStartIsTriedUnderAHigherEpoch) {
  const auto insid = define(import_server("wiki"), "VS");
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ASSERT_EQ(ops(), "image/prepare");
  const auto first = last();
  say(Event::failed, "a higher epoch has the disk");
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ASSERT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, first.nid);
  EXPECT_EQ(last().epoch, first.epoch + 1);
  EXPECT_NE(last().database_grant, first.database_grant);
  say(Event::prepared);
  ops();
  say(Event::running);
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ops();
  EXPECT_EQ(last().epoch, first.epoch + 2) << "as at each start: whatever had leave for its disk is over";
}

TEST_F(Servers, RunsOnlyWhereItsDiskIs) {
  const auto insid = run_server(import_server("wiki"));
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    store::put_cluster(sql, "cc9");
    store::set_disk_cluster(sql, insid, "cc9");
    return {};
  }));
  const auto refused = cloud->run_vm(admin, insid);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("its database disk lies in cc9"));
  EXPECT_THAT(cloud->why(admin, insid)->plan.explain(), HasSubstr("its database disk lies in cc9"));
}

TEST_F(Servers, AServerKeepsItsImageAServers) {
  const auto imgid = import_server("wiki");
  const auto insid = define(imgid, "VS");
  ImageChange change;
  change.usage = "desktop";
  EXPECT_THAT(cloud->change_image(admin, imgid, change).error().message, HasSubstr(insid));
}

TEST_F(Servers, WhatAForcedEndLeavesAnotherNodeRemoves) {
  const auto imgid = import_server("wiki");
  const auto tid = edit(imgid);
  const auto node = last().nid;
  (node == "nc1" ? nc1_beats : nc2_beats) = false;
  for (int i = 0; i < 70; ++i) advance(10);
  ops();
  const auto ended = cloud->cancel_task(admin, tid, true);
  ASSERT_TRUE(ended) << ended.error().message;
  EXPECT_EQ(ops(), "task/delete task/delete task/delete") << "the cancel, the farewell, the other node's";
  EXPECT_NE(last().nid, node);
  EXPECT_FALSE(last().database_grant.empty());
  const auto& farewell = commands[commands.size() - 2];
  EXPECT_EQ(farewell.nid, node);
  EXPECT_EQ(farewell.database_grant, "");
  EXPECT_GT(last().epoch, farewell.epoch);
  say(Event::deleted);
  EXPECT_EQ(at(tid), "submitting/gone");
}

TEST_F(Servers, WhatALostNodeWasToRemoveAnotherRemoves) {
  const auto insid = run_server(import_server("wiki"));
  const auto first = last();
  ASSERT_TRUE(cloud->delete_vm(admin, insid));
  EXPECT_EQ(ops(), "task/delete");
  const auto lose = [&](const std::string& node) {
    ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
      auto& engine = cloud->impl().engine;
      if (auto ok = engine.lose_node(sql, node); !ok) return ok;
      return engine.relocate(sql, *store::open_task(sql, first.tid), true).map([](bool done) {
        EXPECT_TRUE(done);
      });
    }));
  };
  lose(first.nid);
  EXPECT_EQ(ops(), "task/delete task/delete");
  EXPECT_NE(last().nid, first.nid);
  EXPECT_FALSE(last().database_grant.empty());
  EXPECT_EQ(commands[commands.size() - 2].database_grant, "") << "the farewell";
  EXPECT_FALSE(cloud->vm(admin, insid)) << "for its owner it is gone";
  // Nobody is left to do it: that stays on record.
  lose(last().nid);
  EXPECT_EQ(ops(), "task/delete");
  const auto left = store->read([&](store::Sql& sql) -> Result<std::int64_t> {
    return sql.number("SELECT COUNT(*) FROM audit WHERE action = 'disk.left' AND object = ?", {insid});
  });
  EXPECT_EQ(*left, 1);
}

TEST_F(Servers, DesktopsHaveTheirOwnersFolder) {
  const auto imgid = import("debian");
  const Principal ann{"ann", false};
  NewVm request;
  request.imgid = imgid;
  request.folder_protocol = "smb";
  request.autostart = true;
  const auto vm = cloud->define_vm(ann, request);
  ASSERT_TRUE(vm);
  EXPECT_TRUE(vm->instance.autostart);
  ASSERT_TRUE(cloud->run_vm(ann, vm->instance.insid));
  ops();
  EXPECT_THAT(disks(last()), testing::ElementsAre("images/" + imgid + "/machine multiattach"));
  EXPECT_THAT(folders(last()), testing::ElementsAre("d space/prv-data/ann rw", "e space/pub-data rw"));
  EXPECT_EQ(last().runtime_option->folder_protocol, "smb");
  EXPECT_FALSE(last().database);
  EXPECT_FALSE(cloud->vm(admin, define(imgid))->instance.autostart);
  request.kind = "TVD";
  EXPECT_EQ(cloud->define_vm(ann, request).error().key, "autostart");
  request.folder_protocol = "nfs";
  request.autostart.reset();
  EXPECT_EQ(cloud->define_vm(ann, request).error().key, "folder_protocol");
}

TEST_F(Servers, AClusterSaysHowItsDisksAreReached) {
  EXPECT_EQ(cloud->set_database_mode({"ann", false}, "cc1", "nbd").error().code,
            ErrorCode::permission_denied);
  EXPECT_EQ(cloud->set_database_mode(admin, "cc7", "nbd").error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->set_database_mode(admin, "cc1", "nfs").error().key, "database_mode");
  EXPECT_EQ(cloud->set_database_mode(admin, "cc1", "nbd")->database_mode, "nbd");
  const auto imgid = import_server("wiki");
  ASSERT_TRUE(cloud->run_vm(admin, define(imgid, "VS")));
  ops();
  EXPECT_EQ(last().database_mode, "nbd");
  EXPECT_TRUE(last().database_lost.empty());

  ASSERT_TRUE(cloud->set_database_mode(admin, "cc1", "copy"));
  ASSERT_TRUE(store->write([](store::Sql& sql) -> Result<> {
    store::put_cluster(sql, "cc2");
    store::add_node(sql, "nc9", "cc2");
    return {};
  }));
  ASSERT_TRUE(cloud->run_vm(admin, define(imgid, "VS")));
  ops();
  EXPECT_EQ(last().database_mode, "copy");
  EXPECT_EQ(last().database_lost, std::vector<std::string>{"nc9"}) << "what it has cannot come back to cc1";
}

}  // namespace
}  // namespace educloud::clc
