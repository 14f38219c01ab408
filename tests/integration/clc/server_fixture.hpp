#pragma once

#include "clc/store/tasks.hpp"
#include "common/http/target.hpp"
#include "common/transfer/grant.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {

/// Servers and their database disks: walrus and the nodes are played.
class ServerTest : public CloudTest {
 protected:
  /// An image with one version and the first of its database disk.
  std::string import_server(const std::string& name) {
    const auto imgid = import(name);
    ImageChange change;
    change.usage = "server";
    change.database_gib = 3;
    EXPECT_TRUE(cloud->change_image(admin, imgid, change));
    EXPECT_EQ(ops(), "image/blank");
    say_submitted('d');
    EXPECT_EQ(ops(), "task/delete");
    say(Event::deleted);
    return imgid;
  }
  std::string database_of(const std::string& imgid) {
    return cloud->image(admin, imgid)->image.database_imgid;
  }
  /// Both disks as the last command names them.
  msg::TaskStatus both(char digit, char database_digit) {
    const auto command = last();
    auto status = answer(command, Event::submitted);
    status.receipt = receipt(command, digit);
    status.database_receipt = database_receipt(command, database_digit);
    return status;
  }
  std::string database_receipt(const msg::Command& command, char digit) {
    return transfer::sign_receipt(
        kKey, {command.database_target_imgid, command.database_target_version, std::string(64, digit),
               2 << 20, 50 << 20, "raw", "", command.cmdid});
  }
  std::string run_server(const std::string& imgid) {
    const auto insid = define(imgid, "VS");
    EXPECT_TRUE(cloud->run_vm(admin, insid));
    bring_up();
    return insid;
  }
  std::string edit(const std::string& imgid) {
    const auto task = cloud->modify_image(admin, imgid, {});
    EXPECT_TRUE(task) << task.error().message;
    bring_up();
    EXPECT_TRUE(cloud->stop_task(admin, task->task.tid));
    EXPECT_EQ(ops(), "image/stop");
    say(Event::stopped);
    return task->task.tid;
  }
  /// "file mtype", each.
  static std::vector<std::string> disks(const msg::Command& command) {
    std::vector<std::string> out;
    for (const auto& one : command.runtime_option->disks) out.push_back(one.file + " " + one.mtype);
    return out;
  }
  /// "name path ro|rw", each.
  static std::vector<std::string> folders(const msg::Command& command) {
    std::vector<std::string> out;
    for (const auto& one : command.runtime_option->folders)
      out.push_back(one.name + " " + one.path + (one.read_only ? " ro" : " rw"));
    return out;
  }
};

}  // namespace educloud::clc
