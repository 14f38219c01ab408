#include "clc/domain/vm_disks.hpp"

#include <gtest/gtest.h>

namespace educloud::clc {
namespace {

Task run_of(const std::string& insid) {
  Task task;
  task.kind = TaskKind::run;
  task.insid = insid;
  task.src = task.dst = "IMG00000001";
  return task;
}

// What each flow has is compared with docs/disks.md: see disks_page_test.cpp.

TEST(VmDisks, OnlyServersAndTheirImagesHaveADatabaseDisk) {
  EXPECT_TRUE(has_database_disk(run_of("VS00000001"), "server"));
  EXPECT_TRUE(has_database_disk(run_of("VS00000001"), "")) << "whatever became of its image";
  EXPECT_FALSE(has_database_disk(run_of("VD00000001"), "server"));
  EXPECT_FALSE(has_database_disk(run_of("TVD00000001"), "server"));
  for (const auto kind : {TaskKind::modify, TaskKind::build}) {
    auto task = run_of("TMP00000001");
    task.kind = kind;
    EXPECT_TRUE(has_database_disk(task, "server"));
    EXPECT_FALSE(has_database_disk(task, "desktop"));
  }
  for (const auto kind :
       {TaskKind::push, TaskKind::import, TaskKind::use, TaskKind::prune, TaskKind::remove}) {
    auto task = run_of("TMP00000001");
    task.kind = kind;
    EXPECT_FALSE(has_database_disk(task, "server"));
  }
}

TEST(VmDisks, WhoOutlivesHisTask) {
  EXPECT_TRUE(outlives_its_task("VD00000001"));
  EXPECT_TRUE(outlives_its_task("VS00000001"));
  EXPECT_FALSE(outlives_its_task("TVD00000001"));
  EXPECT_FALSE(outlives_its_task("TMP00000001"));
}

TEST(VmDisks, SoftwareIsWritableForAnAdministratorWhoEdits) {
  auto task = run_of("TMP00000001");
  task.kind = TaskKind::modify;
  EXPECT_EQ(folders_of(task, "desktop", {"root", true, "", 0})->at(0).read_only, 0);
  EXPECT_EQ(folders_of(task, "desktop", {"ann", false, "", 0})->at(0).read_only, 1);
  EXPECT_EQ(folders_of(run_of("VS00000001"), "server", {"root", true, "", 0})->at(0).read_only, 1);
}

TEST(VmDisks, AFolderOfOnesOwnWantsANameThatIsOne) {
  const auto folder = [](const std::string& name) {
    return folders_of(run_of("VD00000001"), "desktop", {name, false, "", 0});
  };
  EXPECT_EQ(folder("ann.b-c_9")->at(0).path, "space/prv-data/ann.b-c_9");
  for (const std::string name : {"", ".", "..", "../bob", "a/b", "Ann", "a b", "-a", "1a", "a\n", "a\\b"}) {
    const auto refused = folder(name);
    ASSERT_FALSE(refused) << name;
    EXPECT_EQ(refused.error().key, "owner");
  }
  EXPECT_FALSE(folder(std::string(33, 'a')));
  EXPECT_TRUE(folders_of(run_of("VS00000001"), "server", {"../x", false, "", 0})) << "it has none of its own";
}

}  // namespace
}  // namespace educloud::clc
