#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class VmFlow : public CloudTest {};

TEST_F(VmFlow, ADesktopRunsStopsRunsAgainAndIsDeleted) {
  const auto imgid = import("debian");
  const auto insid = define(imgid);
  EXPECT_EQ(cloud->vm(admin, insid)->state, "defined");
  const auto task = cloud->run_vm(admin, insid);
  ASSERT_TRUE(task) << task.error().message;
  const auto tid = task->task.tid;
  EXPECT_EQ(tid, imgid + ":" + imgid + ":" + insid);
  bring_up();
  EXPECT_EQ(at(tid), "editing/running+");
  auto vm = cloud->vm(admin, insid);
  EXPECT_EQ(vm->state, "running");
  ASSERT_TRUE(vm->access);
  EXPECT_EQ(vm->access->address, "10.0.0.11");
  EXPECT_EQ(vm->access->display_port, 5900);
  EXPECT_EQ(vm->access->display_password.size(), 8u);
  const auto first_password = vm->access->display_password;
  EXPECT_EQ(last().runtime_option->display_password, first_password);

  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_EQ(at(tid), "editing/running+");
  say(Event::stopped);
  EXPECT_EQ(at(tid), "editing/stopped+");
  EXPECT_FALSE(cloud->vm(admin, insid)->access) << "ports are given back";

  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  EXPECT_EQ(last().attempt, 5);
  EXPECT_NE(cloud->vm(admin, insid)->access->display_password, first_password);

  EXPECT_EQ(cloud->delete_vm(admin, insid)->state, "deleting");
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(at(tid), "submitting/gone+");
  EXPECT_EQ(cloud->vm(admin, insid).error().code, ErrorCode::not_found);
}

TEST_F(VmFlow, ATemporaryDesktopVanishesWhenItStops) {
  const auto imgid = import("debian");
  const auto insid = define(imgid, "TVD");
  bring_up();
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  EXPECT_EQ(ops(), "image/stop");
  say(Event::stopped);
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(cloud->vm(admin, insid).error().code, ErrorCode::not_found);
}

TEST_F(VmFlow, ATemporaryDesktopThatFailsStaysToTellWhy) {
  const auto insid = define(import("debian"), "TVD");
  ASSERT_EQ(ops(), "image/prepare");
  say(Event::failed, "disk full on nc1");
  const auto vm = cloud->vm(admin, insid);
  EXPECT_EQ(vm->state, "failed");
  EXPECT_EQ(vm->task->task.errormsg, "disk full on nc1");
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  EXPECT_EQ(cloud->vm(admin, insid)->state, "running");
}

TEST_F(VmFlow, AGuestThatPowersOffIsNoticed) {
  const auto insid = define(import("debian"));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  say(Event::stopped);  // nobody asked
  EXPECT_EQ(cloud->vm(admin, insid)->state, "stopped");
}

TEST_F(VmFlow, AStoppedDesktopMovesWhenItsNodeIsSilent) {
  const auto insid = define(import("debian"));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  EXPECT_EQ(last().nid, "nc1");
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  ops();
  say(Event::stopped);
  nc1_beats = false;
  advance(20);
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  EXPECT_EQ(ops(), "task/delete image/prepare");
  EXPECT_EQ(commands[commands.size() - 2].nid, "nc1");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().epoch, 2);
  // What the old node says about the farewell moves nothing.
  tell(answer(commands[commands.size() - 2], Event::deleted));
  EXPECT_EQ(cloud->vm(admin, insid)->state, "preparing");
  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
}

TEST_F(VmFlow, NoPortLeftIsAFailureThatSaysSo) {
  const auto imgid = import("debian");
  nc2_beats = false;
  advance(20);
  for (int i = 0; i < 2; ++i) {
    NewVm request;
    request.imgid = imgid;
    request.kind = "TVD";
    request.memory_mib = 512;
    ASSERT_TRUE(cloud->define_vm(admin, request));
    bring_up();
  }
  NewVm request;
  request.imgid = imgid;
  request.kind = "TVD";
  request.memory_mib = 512;
  const auto third = cloud->define_vm(admin, request);
  ASSERT_EQ(ops(), "image/prepare");
  say(Event::prepared);
  EXPECT_EQ(ops(), "");
  EXPECT_THAT(cloud->vm(admin, third->instance.insid)->task->task.errormsg,
              HasSubstr("no free display or web port"));
}

TEST_F(VmFlow, NoRoomNamesEachNode) {
  const auto imgid = import("debian");
  NewVm request;
  request.imgid = imgid;
  request.kind = "TVD";
  request.memory_mib = 40'000;
  const auto refused = cloud->define_vm(admin, request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("nc1: memory: needs 40000 + reserve 2048"));
  EXPECT_THAT(refused.error().message, HasSubstr("nc2: memory"));
  EXPECT_EQ(cloud->vms(admin, {})->items.size(), 0u) << "nothing half remains";
}

TEST_F(VmFlow, OthersSeeNothingOfIt) {
  const auto insid = define(import("debian"));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  const Principal ann{"ann", false};
  EXPECT_EQ(cloud->vm(ann, insid).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->stop_vm(ann, insid).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->instance_file(ann, insid, "console").error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->vms(ann, {})->items.size(), 0u);
  EXPECT_EQ(cloud->tasks(ann, {})->items.size(), 0u);
  EXPECT_EQ(cloud->nodes(ann).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(cloud->create_image(ann, {}).error().code, ErrorCode::permission_denied);
  const auto file = cloud->instance_file(admin, insid, "console");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->base_url, "http://10.0.0.2:8002");
  EXPECT_THAT(file->target, HasSubstr("/nodes/nc1/instances/" + insid + "/console?node=nc1&expires="));
}

TEST_F(VmFlow, ListsArePaged) {
  const auto imgid = import("debian");
  for (int i = 0; i < 5; ++i) define(imgid);
  PageRequest page{2, ""};
  int total = 0, pages = 0;
  do {
    const auto part = cloud->vms(admin, page);
    ASSERT_TRUE(part);
    total += static_cast<int>(part->items.size());
    page.cursor = part->next;
    ++pages;
  } while (!page.cursor.empty());
  EXPECT_EQ(total, 5);
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(cloud->vms(admin, {501, ""}).error().key, "limit");
  EXPECT_EQ(cloud->vms(admin, {10, "x; DROP"}).error().key, "cursor");
}

TEST_F(VmFlow, BadInputIsRefusedWithItsKey) {
  const auto imgid = import("debian");
  NewVm request;
  request.imgid = imgid;
  EXPECT_EQ(cloud->vm(admin, "../../etc").error().code, ErrorCode::invalid_argument);
  request.vmtype = "huge";
  EXPECT_EQ(cloud->define_vm(admin, request).error().key, "vmtype");
  request.vmtype = "";
  request.kind = "VS";
  EXPECT_EQ(cloud->define_vm(admin, request).error().key, "kind");
  request.kind = "VD";
  request.node = "nowhere";
  EXPECT_EQ(cloud->define_vm(admin, request).error().key, "node");
  request.node = "";
  request.version = 7;
  EXPECT_EQ(cloud->define_vm(admin, request).error().key, "version");
}

}  // namespace
}  // namespace educloud::clc
