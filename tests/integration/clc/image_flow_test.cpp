#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class ImageFlow : public CloudTest {};

TEST_F(ImageFlow, AnImportWaitsForItsUploadAndBecomesVersionOne) {
  NewImage request;
  request.name = "debian 12";
  request.filename = "debian.vmdk";
  const auto made = cloud->create_image(admin, request);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(ops(), "image/import");
  EXPECT_EQ(last().target_imgid, made->imgid);
  EXPECT_EQ(last().target_version, 1);
  EXPECT_EQ(made->upload.url, "http://walrus:8001/uploads");
  EXPECT_EQ(made->upload.cmdid, last().cmdid);
  EXPECT_EQ(made->upload.format, "vmdk");
  EXPECT_THAT(made->upload.query, HasSubstr("image=" + made->imgid + "&version=1&node=user&expires="));
  EXPECT_EQ(cloud->image(admin, made->imgid)->state, "importing");
  auto progress = answer(last(), Event::uploading);
  progress.bytes_done = 50, progress.bytes_total = 100, progress.progress = 50;
  tell(progress);
  EXPECT_EQ(at(made->tid), "submitting/uploading");
  EXPECT_EQ(cloud->task(admin, made->tid)->task.bytes_done, 50);
  say_submitted();
  EXPECT_EQ(at(made->tid), "submitting/done+");
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(at(made->tid), "submitting/gone+");
  const auto versions = cloud->versions(admin, made->imgid);
  ASSERT_EQ(versions->items.size(), 1u);
  EXPECT_TRUE(versions->items[0].current);
  EXPECT_EQ(versions->items[0].version.digest, std::string(64, 'a'));
  EXPECT_EQ(cloud->create_image(admin, request).error().code, ErrorCode::conflict) << "the name is taken";
}

TEST_F(ImageFlow, ARefusedImportCanBeTriedAgainOrCancelled) {
  NewImage request;
  request.name = "bad";
  const auto made = cloud->create_image(admin, request);
  ops();
  const auto first_cmdid = last().cmdid;
  say(Event::failed, "bad.qcow2 has a backing file: flatten it first");
  EXPECT_EQ(at(made->tid), "submitting/init!");
  EXPECT_EQ(cloud->image(admin, made->imgid)->state, "failed");
  EXPECT_EQ(cloud->upload_target(admin, made->tid).error().code, ErrorCode::conflict);
  ASSERT_TRUE(cloud->submit_task(admin, made->tid));
  EXPECT_EQ(ops(), "image/import");
  EXPECT_EQ(last().target_version, 2) << "a number once tried is not given again";
  EXPECT_NE(last().cmdid, first_cmdid);
  EXPECT_EQ(cloud->upload_target(admin, made->tid)->cmdid, last().cmdid);
  ASSERT_TRUE(cloud->cancel_task(admin, made->tid));
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(at(made->tid), "submitting/gone");
  EXPECT_EQ(cloud->image(admin, made->imgid).error().code, ErrorCode::not_found);
}

TEST_F(ImageFlow, ModifyMakesANewVersion) {
  const auto imgid = import("debian");
  const auto task = cloud->modify_image(admin, imgid, {});
  ASSERT_TRUE(task) << task.error().message;
  const auto tid = task->task.tid;
  EXPECT_THAT(tid, HasSubstr(imgid + ":" + imgid + ":TMP"));
  EXPECT_THAT(task->task.placement, HasSubstr("nc1: chosen"));
  bring_up();
  EXPECT_THAT(last().runtime_option->disks[0].mtype, "normal");
  EXPECT_THAT(cloud->submit_task(admin, tid).error().message, HasSubstr("stop its VM first"));
  ASSERT_TRUE(cloud->stop_task(admin, tid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  EXPECT_EQ(ops(), "image/submit");
  EXPECT_EQ(last().target_version, 2);
  EXPECT_THAT(last().target_grant, HasSubstr("node=nc1&expires="));
  EXPECT_EQ(last().if_current, imgid + "/1");
  say(Event::uploading);
  say_submitted('b');
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_EQ(cloud->image(admin, imgid)->image.current_version, 2);
  say(Event::deleted);
  EXPECT_EQ(at(tid), "submitting/gone+");
  EXPECT_EQ(cloud->versions(admin, imgid)->items[1].version.parent, 1);
  // The next desktop starts from it.
  define(imgid, "TVD");
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().source->version, 2);
  EXPECT_EQ(last().source->digest, std::string(64, 'b'));
}

TEST_F(ImageFlow, BuildMakesANewImage) {
  const auto imgid = import("debian");
  EditRequest request;
  request.name = "debian with editors";
  const auto task = cloud->build_image(admin, imgid, request);
  ASSERT_TRUE(task) << task.error().message;
  const auto made = task->task.dst;
  EXPECT_NE(made, imgid);
  EXPECT_EQ(cloud->image(admin, made)->state, "building");
  bring_up();
  ASSERT_TRUE(cloud->stop_task(admin, task->task.tid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(cloud->submit_task(admin, task->task.tid));
  ops();
  EXPECT_EQ(last().if_current, "");
  say_submitted('c');
  ops();
  say(Event::deleted);
  EXPECT_EQ(cloud->image(admin, made)->state, "ready");
  EXPECT_EQ(cloud->image(admin, made)->image.current_version, 1);
  EXPECT_EQ(cloud->image(admin, imgid)->image.current_version, 1);
}

TEST_F(ImageFlow, ABuildThatIsCancelledLeavesNoImage) {
  const auto imgid = import("debian");
  EditRequest request;
  request.name = "copy";
  const auto task = cloud->build_image(admin, imgid, request);
  ops();
  say(Event::cloning);
  ASSERT_TRUE(cloud->cancel_task(admin, task->task.tid));
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(cloud->image(admin, task->task.dst).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->images(admin, {})->items.size(), 1u);
}

TEST_F(ImageFlow, AForgedReceiptPublishesNothing) {
  const auto imgid = import("debian");
  const auto task = cloud->modify_image(admin, imgid, {});
  const auto tid = task->task.tid;
  bring_up();
  ASSERT_TRUE(cloud->stop_task(admin, tid));
  ops();
  say(Event::stopped);
  for (int forgery = 0; forgery < 3; ++forgery) {
    ASSERT_TRUE(cloud->submit_task(admin, tid));
    EXPECT_EQ(ops(), "image/submit");
    auto status = answer(last(), Event::submitted);
    auto other = last();
    other.target_version = 99;
    if (forgery == 0) status.receipt = "made up";
    if (forgery == 1)
      status.receipt = transfer::sign_receipt(
          std::string(64, '8'),
          {imgid, last().target_version, std::string(64, 'd'), 1, 1, "raw", "", last().cmdid});
    if (forgery == 2) status.receipt = receipt(other);
    tell(status);
    EXPECT_EQ(at(tid), "submitting/init!");
    EXPECT_THAT(cloud->task(admin, tid)->task.errormsg, HasSubstr("the submit was refused"));
    EXPECT_EQ(cloud->image(admin, imgid)->image.current_version, 1);
  }
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  say_submitted();
  EXPECT_EQ(at(tid), "submitting/done+");
}

TEST_F(ImageFlow, RollbackAndPruneGoThroughWalrus) {
  const auto imgid = import("debian");
  for (char digit : {'b', 'c'}) {
    const auto task = cloud->modify_image(admin, imgid, {});
    ASSERT_TRUE(task) << task.error().message;
    bring_up();
    ASSERT_TRUE(cloud->stop_task(admin, task->task.tid));
    ops();
    say(Event::stopped);
    ASSERT_TRUE(cloud->submit_task(admin, task->task.tid));
    ops();
    say_submitted(digit);
    ops();
    say(Event::deleted);
  }
  const auto back = cloud->rollback_image(admin, imgid, 1);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(ops(), "image/use");
  EXPECT_EQ(last().target_version, 1);
  EXPECT_THAT(cloud->prune_image(admin, imgid, {{2}, 0}).error().message, HasSubstr("under upkeep by task"));
  EXPECT_EQ(cloud->image(admin, imgid)->image.current_version, 3);
  say(Event::submitted);
  EXPECT_EQ(at(back->task.tid), "submitting/gone+");
  EXPECT_EQ(cloud->image(admin, imgid)->image.current_version, 1);

  NewVm pinned;
  pinned.imgid = imgid;
  pinned.version = 2;
  const auto vm = cloud->define_vm(admin, pinned);
  EXPECT_THAT(cloud->prune_image(admin, imgid, {{2}, 0}).error().message, HasSubstr(vm->instance.insid));
  EXPECT_THAT(cloud->prune_image(admin, imgid, {{1}, 0}).error().message, HasSubstr("is the one in use"));
  EXPECT_THAT(cloud->prune_image(admin, imgid, {{9}, 0}).error().code, ErrorCode::not_found);
  ASSERT_TRUE(cloud->delete_vm(admin, vm->instance.insid));
  // An edit's overlay lies on version 1: it stays although "keep 1" would let it go.
  const auto prune = cloud->prune_image(admin, imgid, {{}, 1});
  ASSERT_TRUE(prune) << prune.error().message;
  EXPECT_EQ(ops(), "image/prune");
  EXPECT_EQ(last().versions, std::vector<int>{2});
  say(Event::failed, "walrus: disk error");
  EXPECT_EQ(at(prune->task.tid), "submitting/init!");
  EXPECT_EQ(cloud->versions(admin, imgid)->items.size(), 3u);
  ASSERT_TRUE(cloud->submit_task(admin, prune->task.tid));
  EXPECT_EQ(ops(), "image/prune");
  EXPECT_EQ(last().versions, std::vector<int>{2});
  say(Event::submitted);
  EXPECT_EQ(cloud->versions(admin, imgid)->items.size(), 2u);
}

TEST_F(ImageFlow, AVersionAnEditStandsOnCannotBePruned) {
  const auto imgid = import("debian");
  const auto edit = cloud->modify_image(admin, imgid, {});
  ops();
  EXPECT_THAT(cloud->delete_image(admin, imgid).error().message, HasSubstr(edit->task.tid));
  const auto versions = cloud->versions(admin, imgid);
  EXPECT_EQ(versions->items[0].used_by, std::vector<std::string>{edit->task.insid});
}

TEST_F(ImageFlow, AVersionForTheNextStartCannotBePrunedEither) {
  const auto imgid = import("debian");
  const auto insid = define(imgid);
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    sql.run("UPDATE instances SET version = 7 WHERE insid = ?", {insid});
    sql.run("UPDATE tasks SET source_version = 6 WHERE insid = ?", {insid});
    for (const int version : {6, 7, 8}) {
      auto more = *store::find_version(sql, imgid, 1);
      more.version = version;
      store::add_version(sql, more);
    }
    return {};
  }));
  EXPECT_THAT(cloud->prune_image(admin, imgid, {{6}, 0}).error().message, HasSubstr(insid));
  EXPECT_THAT(cloud->prune_image(admin, imgid, {{7}, 0}).error().message, HasSubstr(insid));
  EXPECT_TRUE(cloud->prune_image(admin, imgid, {{8}, 0}));
}

TEST_F(ImageFlow, AnImageIsDeletedWhenNothingUsesIt) {
  const auto imgid = import("debian");
  const auto insid = define(imgid);
  EXPECT_THAT(cloud->delete_image(admin, imgid).error().message, HasSubstr(insid));
  ASSERT_TRUE(cloud->delete_vm(admin, insid));
  const auto task = cloud->delete_image(admin, imgid);
  ASSERT_TRUE(task) << task.error().message;
  EXPECT_EQ(ops(), "image/delete");
  EXPECT_EQ(cloud->image(admin, imgid)->state, "deleting");
  NewVm late;
  late.imgid = imgid;
  EXPECT_EQ(cloud->define_vm(admin, late).error().code, ErrorCode::conflict);
  say(Event::submitted);
  EXPECT_EQ(cloud->image(admin, imgid).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace educloud::clc
