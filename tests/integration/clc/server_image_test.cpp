#include "integration/clc/server_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class ServerImages : public ServerTest {};

TEST_F(ServerImages, AnImageBecomesAServersWithADiskForItsData) {
  const auto imgid = import("wiki");
  NewVm request;
  request.imgid = imgid;
  request.kind = "VS";
  EXPECT_THAT(cloud->define_vm(admin, request).error().message, HasSubstr("--usage server"));
  ImageChange change;
  change.usage = "server";
  change.database_gib = 3;
  const auto changed = cloud->change_image(admin, imgid, change);
  ASSERT_TRUE(changed) << changed.error().message;
  EXPECT_EQ(changed->image.usage, "desktop") << "until the disk is there";
  EXPECT_EQ(changed->database_state, "making");
  EXPECT_EQ(ops(), "image/blank");
  EXPECT_EQ(last().disk_bytes, std::int64_t{3} << 30);
  EXPECT_EQ(last().target_imgid, database_of(imgid));
  EXPECT_EQ(last().target_version, 1);
  EXPECT_EQ(last().tid, changed->tid);
  EXPECT_THAT(cloud->modify_image(admin, imgid, {}).error().message, HasSubstr(changed->tid));
  EXPECT_EQ(cloud->delete_image(admin, imgid).error().code, ErrorCode::conflict);
  say(Event::failed, "mke2fs: no space left");
  EXPECT_EQ(at(changed->tid), "submitting/init!");
  ASSERT_TRUE(cloud->submit_task(admin, changed->tid));
  EXPECT_EQ(ops(), "image/blank");
  EXPECT_EQ(last().target_version, 2);
  say_submitted('d');
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(cloud->image(admin, imgid)->image.usage, "server");
  EXPECT_EQ(cloud->image(admin, imgid)->database_state, "ready");
  EXPECT_EQ(cloud->versions(admin, imgid)->items[0].version.database_version, 2);
  EXPECT_THAT(cloud->images(admin, {})->items, SizeIs(1)) << "the disk's image is listed nowhere";
  EXPECT_EQ(cloud->status(admin)->images, 1);
  EXPECT_EQ(cloud->change_image(admin, imgid, change).error().key, "database_gib") << "it has one";
  request.kind = "VD";
  EXPECT_THAT(cloud->define_vm(admin, request).error().message, HasSubstr("--server"));
}

TEST_F(ServerImages, ADiskThatIsGivenUpCanBeMadeAgain) {
  const auto imgid = import("wiki");
  ImageChange change;
  change.usage = "server";
  const auto changed = cloud->change_image(admin, imgid, change);
  ops();
  EXPECT_EQ(last().disk_bytes, std::int64_t{kDatabaseGib} << 30);
  ASSERT_TRUE(cloud->cancel_task(admin, changed->tid));
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(database_of(imgid), "");
  EXPECT_EQ(cloud->image(admin, imgid)->image.usage, "desktop");
  ASSERT_TRUE(cloud->change_image(admin, imgid, change));
  EXPECT_EQ(ops(), "image/blank");
}

TEST_F(ServerImages, AnImportForServersGetsItsDiskAfterwards) {
  NewImage request;
  request.name = "wiki";
  request.usage = "server";
  request.database_gib = 7;
  const auto made = cloud->create_image(admin, request);
  ASSERT_TRUE(made);
  ops();
  say_submitted();
  EXPECT_EQ(ops(), "image/blank task/delete");
  EXPECT_EQ(commands[commands.size() - 2].disk_bytes, std::int64_t{7} << 30);
  NewVm vm;
  vm.imgid = made->imgid;
  vm.kind = "VS";
  EXPECT_THAT(cloud->define_vm(admin, vm).error().message, HasSubstr("is being made"));
  auto status = answer(commands[commands.size() - 2], Event::submitted);
  status.receipt = receipt(commands[commands.size() - 2], 'd');
  tell(status);
  ops();
  EXPECT_TRUE(cloud->define_vm(admin, vm));
}

TEST_F(ServerImages, TheHiddenImageIsReadAndNotChanged) {
  const auto imgid = import_server("wiki");
  const auto disk = database_of(imgid);
  EXPECT_TRUE(cloud->version_url(admin, disk, 1, 3600));
  EXPECT_EQ(cloud->versions(admin, disk)->items.size(), 1u);
  EXPECT_THAT(cloud->modify_image(admin, disk, {}).error().message, HasSubstr("changes with that"));
  EXPECT_FALSE(cloud->delete_image(admin, disk));
  EXPECT_FALSE(cloud->prune_image(admin, disk, {{1}, 0}));
  EXPECT_FALSE(cloud->change_image(admin, disk, {"x", {}, {}, 0}));
  for (const char* kind : {"VD", "TVD", "VS"}) {
    NewVm vm;
    vm.imgid = disk;
    vm.kind = kind;
    EXPECT_EQ(cloud->define_vm(admin, vm).error().code, ErrorCode::conflict) << kind;
  }
}

TEST_F(ServerImages, AnEditedServerIsSubmittedWithBothDisksOrNotAtAll) {
  const auto imgid = import_server("wiki");
  const auto disk = database_of(imgid);
  const auto tid = edit(imgid);
  const auto run = *std::find_if(commands.rbegin(), commands.rend(),
                                 [](const auto& one) { return one.op == "image/run"; });
  EXPECT_THAT(disks(run), testing::ElementsAre("images/" + imgid + "/machine normal",
                                               "space/database/images/" + imgid + "/database normal",
                                               "images/data multiattach"));
  EXPECT_THAT(folders(run), testing::ElementsAre("f space/software rw")) << "an administrator's";
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ASSERT_EQ(ops(), "image/submit");
  const auto submit = last();
  EXPECT_EQ(submit.target_version, 2);
  EXPECT_EQ(submit.database_target_imgid, disk);
  EXPECT_EQ(submit.database_target_version, 2);
  EXPECT_THAT(submit.database_target_grant, HasSubstr("node=" + submit.nid));
  EXPECT_EQ(submit.database->version, 1) << "its parent";
  // Without the second receipt, with one for another command, with one about the system disk: refused.
  auto status = both('b', 'e');
  status.database_receipt.clear();
  tell(status);
  EXPECT_EQ(at(tid), "submitting/init!");
  EXPECT_THAT(cloud->task(admin, tid)->task.errormsg, HasSubstr("its database disk"));
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  status = both('b', 'e');
  status.database_receipt = database_receipt(submit, 'e');
  tell(status);
  EXPECT_EQ(at(tid), "submitting/init!");
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  status = both('b', 'e');
  status.database_receipt = status.receipt;
  tell(status);
  EXPECT_EQ(at(tid), "submitting/init!");
  EXPECT_THAT(cloud->versions(admin, imgid)->items, SizeIs(1));
  EXPECT_THAT(cloud->versions(admin, disk)->items, SizeIs(1));
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  const int version = last().target_version, database = last().database_target_version;
  tell(both('b', 'e'));
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_FALSE(last().database_grant.empty()) << "the working copy goes";
  const auto made = cloud->versions(admin, imgid)->items.at(1).version;
  EXPECT_EQ(made.version, version);
  EXPECT_EQ(made.database_version, database);
  const auto made_disk = cloud->versions(admin, disk)->items.at(1).version;
  EXPECT_EQ(made_disk.version, database);
  EXPECT_EQ(made_disk.parent, 1);
  EXPECT_EQ(made_disk.digest, std::string(64, 'e'));
  say(Event::deleted);
  EXPECT_EQ(at(tid), "submitting/gone+");
  // A new server is made from the pair.
  ASSERT_TRUE(cloud->run_vm(admin, define(imgid, "VS")));
  ops();
  EXPECT_EQ(last().source->version, version);
  EXPECT_EQ(last().database->version, database);
}

TEST_F(ServerImages, ARestartOfClcForgetsNothingOfASubmit) {
  const auto imgid = import_server("wiki");
  const auto tid = edit(imgid);
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  const auto status = both('b', 'e');
  halt();
  boot();
  beat();
  auto half = status;
  half.database_receipt.clear();
  half.msgid += "x";
  --half.seq;
  tell(half);
  EXPECT_EQ(at(tid), "submitting/init!") << "which disks it was about is on disk";
  EXPECT_THAT(cloud->versions(admin, imgid)->items, SizeIs(1));
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  tell(both('b', 'e'));
  EXPECT_EQ(cloud->versions(admin, imgid)->items.back().version.database_version, 3);
}

TEST_F(ServerImages, ABuildMakesAnImageWithADiskOfItsOwn) {
  const auto imgid = import_server("wiki");
  EditRequest request;
  request.name = "wiki two";
  const auto task = cloud->build_image(admin, imgid, request);
  ASSERT_TRUE(task) << task.error().message;
  const auto made = task->task.dst, tid = task->task.tid;
  bring_up();
  EXPECT_THAT(disks(last()), testing::ElementsAre("tmp/images/" + made + "/machine normal",
                                                  "space/database/tmp/images/" + made + "/database normal",
                                                  "images/data multiattach"));
  ASSERT_TRUE(cloud->stop_task(admin, tid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  EXPECT_EQ(last().database_target_imgid, database_of(made));
  EXPECT_NE(database_of(made), database_of(imgid));
  EXPECT_EQ(last().database_target_version, 1);
  tell(both('c', 'f'));
  ops();
  say(Event::deleted);
  EXPECT_EQ(cloud->versions(admin, made)->items.at(0).version.database_version, 1);
  EXPECT_EQ(cloud->versions(admin, database_of(made))->items.at(0).version.parent, 0);
  ASSERT_TRUE(cloud->run_vm(admin, define(made, "VS")));
  ops();
  EXPECT_EQ(last().database->imgid, database_of(made));
}

TEST_F(ServerImages, ABuildThatIsCancelledLeavesNoDisk) {
  const auto imgid = import_server("wiki");
  EditRequest request;
  request.name = "wiki two";
  const auto task = cloud->build_image(admin, imgid, request);
  ops();
  const auto disk = database_of(task->task.dst);
  ASSERT_TRUE(cloud->cancel_task(admin, task->task.tid));
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_FALSE(last().database_grant.empty());
  say(Event::deleted);
  EXPECT_FALSE(cloud->image(admin, task->task.dst));
  EXPECT_FALSE(cloud->image(admin, disk));
}

TEST_F(ServerImages, UpkeepTakesTheDatabaseVersionsAlong) {
  const auto imgid = import_server("wiki");
  const auto disk = database_of(imgid);
  for (const char digit : {'b', 'c'}) {
    const auto tid = edit(imgid);
    ASSERT_TRUE(cloud->submit_task(admin, tid));
    ops();
    tell(both(digit, digit));
    ops();
    say(Event::deleted);
  }
  ASSERT_TRUE(cloud->rollback_image(admin, imgid, 2));
  EXPECT_EQ(ops(), "image/use");
  say(Event::submitted);
  EXPECT_EQ(ops(), "image/use");
  EXPECT_EQ(last().target_imgid, disk);
  EXPECT_EQ(last().target_version, 2);
  say(Event::submitted);
  EXPECT_EQ(cloud->image(admin, disk)->image.current_version, 2);
  ASSERT_TRUE(cloud->prune_image(admin, imgid, {{1, 3}, 0}));
  EXPECT_EQ(ops(), "image/prune");
  say(Event::submitted);
  EXPECT_EQ(ops(), "image/prune");
  EXPECT_EQ(last().target_imgid, disk);
  EXPECT_EQ(last().versions, (std::vector<int>{1, 3}));
  say(Event::submitted);
  EXPECT_THAT(cloud->versions(admin, disk)->items, SizeIs(1));
  ASSERT_TRUE(cloud->delete_image(admin, imgid));
  EXPECT_EQ(ops(), "image/delete");
  say(Event::deleted);
  EXPECT_EQ(ops(), "image/delete");
  EXPECT_EQ(last().target_imgid, disk);
  say(Event::deleted);
  EXPECT_FALSE(cloud->image(admin, disk));
}

TEST_F(ServerImages, VersionsThatShareADiskKeepIt) {
  const auto imgid = import("wiki");
  for (const char digit : {'b', 'c'}) {
    const auto tid = edit(imgid);
    ASSERT_TRUE(cloud->submit_task(admin, tid));
    ops();
    say_submitted(digit);
    ops();
    say(Event::deleted);
  }
  ImageChange change;
  change.usage = "server";
  ASSERT_TRUE(cloud->change_image(admin, imgid, change));
  ops();
  say_submitted('d');
  ops();
  say(Event::deleted);
  ASSERT_TRUE(cloud->prune_image(admin, imgid, {{1}, 0}));
  EXPECT_EQ(ops(), "image/prune");
  say(Event::submitted);
  EXPECT_EQ(ops(), "") << "versions 2 and 3 have it too";
  // A desktop's for a while, and a server's again.
  change.usage = "desktop";
  ASSERT_TRUE(cloud->change_image(admin, imgid, change));
  const auto tid = edit(imgid);
  const auto run = *std::find_if(commands.rbegin(), commands.rend(),
                                 [](const auto& one) { return one.op == "image/run"; });
  EXPECT_FALSE(run.database);
  EXPECT_THAT(disks(run),
              testing::ElementsAre("images/" + imgid + "/machine normal", "images/data multiattach"));
  EXPECT_THAT(folders(run), testing::ElementsAre("e space/software rw"));
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  EXPECT_EQ(last().database_target_imgid, "");
  say_submitted('e');
  ops();
  say(Event::deleted);
  change.usage = "server";
  const auto again = cloud->change_image(admin, imgid, change);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->image.usage, "server");
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(cloud->versions(admin, imgid)->items.back().version.database_version, 1);
}

}  // namespace
}  // namespace educloud::clc
