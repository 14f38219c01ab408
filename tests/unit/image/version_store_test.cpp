#include "common/image/version_store.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/image/digest.hpp"
#include "support/temp_dir.hpp"

namespace educloud::image {
namespace {

namespace fs = std::filesystem;
using educloud::testing::slurp;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::string_view kImage = "IMG00000001";
constexpr std::string_view kOther = "IMG00000002";

class VersionStoreTest : public ::testing::Test {
 protected:
  VersionStoreTest() { reopen(); }

  /// As after a restart of the daemon.
  void reopen(VersionStore::Options options = {}) {
    store_.reset();
    auto opened = VersionStore::open(dir_.path(), options);
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = std::move(*opened);
  }

  static VersionInfo info_of(std::string_view content, std::string_view image, int version) {
    Sha256 hash;
    hash.update(content);
    VersionInfo info;
    info.image = image;
    info.version = version;
    info.digest = hash.finish();
    info.size_bytes = content.size();
    info.virtual_size_bytes = 1 << 20;
    return info;
  }

  fs::path stage(std::string_view content, std::string_view name = "incoming") {
    return dir_.write("tmp/staging/" + std::string(name), content);
  }

  Result<> publish(std::string_view content, std::string_view image, int version) {
    return store_->publish(stage(content), info_of(content, image, version));
  }

  std::vector<int> versions(std::string_view image = kImage) {
    std::vector<int> numbers;
    const auto found = store_->list(image);
    EXPECT_TRUE(found);
    for (const auto& info : *found) numbers.push_back(info.version);
    return numbers;
  }

  static std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  const educloud::testing::TempDir dir_;
  std::unique_ptr<VersionStore> store_;
};

TEST_F(VersionStoreTest, PublishedVersionIsCompleteAndReadOnly) {
  auto info = info_of("disk", kImage, 1);
  info.parent = "IMG00000009/4";
  const auto staged = stage("disk");
  ASSERT_TRUE(store_->publish(staged, info));
  EXPECT_FALSE(fs::exists(staged));
  const auto found = store_->find(kImage, 1);
  ASSERT_TRUE(found);
  EXPECT_GT(found->created_at, 0);
  info.created_at = found->created_at;
  EXPECT_EQ(*found, info);
  const auto machine = store_->machine_path(kImage, 1);
  EXPECT_EQ(slurp(machine), "disk");
  EXPECT_EQ(machine, dir_ / "images" / "IMG00000001" / "versions" / "1" / "machine");
  struct stat status {};
  ASSERT_EQ(::stat(machine.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0444U);
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
}

TEST_F(VersionStoreTest, ListsByImageAndNumber) {
  ASSERT_TRUE(publish("b2", kOther, 2));
  ASSERT_TRUE(publish("a10", kImage, 10));
  ASSERT_TRUE(publish("a9", kImage, 9));
  fs::create_directories(dir_ / "images" / "not-an-image");
  fs::create_directories(dir_ / "images" / kImage / "versions" / "07");
  fs::create_directories(dir_ / "images" / kImage / "versions" / "8");  // without its files
  EXPECT_THAT(versions(), ElementsAre(9, 10));
  EXPECT_EQ(store_->list()->size(), 3U);
  EXPECT_THAT(versions("IMG000000ff"), IsEmpty());
}

TEST_F(VersionStoreTest, PublishingTheSameAgainIsSuccess) {
  ASSERT_TRUE(publish("disk", kImage, 1));
  EXPECT_TRUE(publish("disk", kImage, 1));
  EXPECT_FALSE(fs::exists(dir_ / "tmp" / "staging" / "incoming"));
  // The staged file may be gone already: the first try got that far before a kill.
  EXPECT_TRUE(store_->publish(dir_ / "gone", info_of("disk", kImage, 1)));
}

TEST_F(VersionStoreTest, AnotherDigestUnderTheSameNumberIsAConflict) {
  ASSERT_TRUE(publish("disk", kImage, 1));
  const auto result = publish("other", kImage, 1);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::conflict);
  EXPECT_EQ(slurp(store_->machine_path(kImage, 1)), "disk");
  EXPECT_TRUE(fs::exists(dir_ / "tmp" / "staging" / "incoming"));
}

TEST_F(VersionStoreTest, RefusesWhatDoesNotFit) {
  auto info = info_of("disk", kImage, 1);
  info.size_bytes = 10'000'000'000'000'000;
  EXPECT_EQ(store_->publish(stage("disk"), info).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(store_->publish(dir_ / "none", info_of("disk", kImage, 1)).error().code, ErrorCode::not_found);
  info = info_of("disk", "../../../../etc", 1);
  EXPECT_EQ(store_->publish(stage("disk"), info).error().code, ErrorCode::invalid_argument);
  info = info_of("disk", kImage, 0);
  EXPECT_EQ(store_->publish(stage("disk"), info).error().code, ErrorCode::invalid_argument);
  info = info_of("disk", kImage, 1);
  info.digest = "abc";
  EXPECT_EQ(store_->publish(stage("disk"), info).error().code, ErrorCode::invalid_argument);
  info = info_of("disk", kImage, 1);
  info.format = "vmdk";
  EXPECT_EQ(store_->publish(stage("disk"), info).error().code, ErrorCode::invalid_argument);
  const auto link = dir_ / "tmp" / "staging" / "link";
  fs::create_symlink("/etc/hostname", link);
  EXPECT_FALSE(store_->publish(link, info_of("disk", kImage, 1)));
  EXPECT_THAT(versions(), IsEmpty());
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
}

TEST_F(VersionStoreTest, CurrentIsALinkThatMoves) {
  ASSERT_TRUE(publish("one", kImage, 1));
  ASSERT_TRUE(publish("two", kImage, 2));
  EXPECT_EQ(store_->current(kImage).value(), std::nullopt);
  ASSERT_TRUE(store_->set_current(kImage, 1));
  EXPECT_EQ(store_->current(kImage).value(), 1);
  EXPECT_EQ(slurp(dir_ / "images" / kImage / "machine"), "one");
  ASSERT_TRUE(store_->set_current(kImage, 2));
  EXPECT_EQ(slurp(dir_ / "images" / kImage / "machine"), "two");
  EXPECT_EQ(store_->set_current(kImage, 3).error().code, ErrorCode::not_found);
  EXPECT_EQ(store_->current(kImage).value(), 2);
  EXPECT_THAT(names_in(dir_ / "images" / kImage), ElementsAre("machine", "versions"));
}

TEST_F(VersionStoreTest, AStrangeCurrentLinkIsNoVersion) {
  ASSERT_TRUE(publish("one", kImage, 1));
  fs::create_symlink("/etc/hostname", dir_ / "images" / kImage / "machine");
  EXPECT_EQ(store_->current(kImage).value(), std::nullopt);
}

TEST_F(VersionStoreTest, RemoveSparesCurrentAndPinned) {
  ASSERT_TRUE(publish("one", kImage, 1));
  ASSERT_TRUE(publish("two", kImage, 2));
  ASSERT_TRUE(publish("three", kImage, 3));
  ASSERT_TRUE(store_->set_current(kImage, 3));
  ASSERT_TRUE(store_->pin(kImage, 2));
  ASSERT_TRUE(store_->pin(kImage, 2));
  EXPECT_TRUE(store_->remove(kImage, 1));
  EXPECT_TRUE(store_->remove(kImage, 1));  // again: fine
  EXPECT_EQ(store_->remove(kImage, 2).error().code, ErrorCode::conflict);
  EXPECT_EQ(store_->remove(kImage, 3).error().code, ErrorCode::conflict);
  EXPECT_EQ(store_->remove_image(kImage).error().code, ErrorCode::conflict);
  store_->unpin(kImage, 2);
  EXPECT_EQ(store_->remove(kImage, 2).error().code, ErrorCode::conflict);
  store_->unpin(kImage, 2);
  EXPECT_TRUE(store_->remove(kImage, 2));
  EXPECT_THAT(versions(), ElementsAre(3));
  EXPECT_TRUE(store_->remove_image(kImage));
  EXPECT_TRUE(store_->remove_image(kImage));
  EXPECT_THAT(names_in(dir_ / "images"), IsEmpty());
  EXPECT_THAT(names_in(dir_ / "tmp" / "trash"), IsEmpty());
}

TEST_F(VersionStoreTest, TheLastVersionTakesItsDirectoriesAlong) {
  ASSERT_TRUE(publish("one", kImage, 1));
  EXPECT_TRUE(store_->remove(kImage, 1));
  EXPECT_THAT(names_in(dir_ / "images"), IsEmpty());
}

TEST_F(VersionStoreTest, PinNeedsAVersion) {
  EXPECT_EQ(store_->pin(kImage, 1).error().code, ErrorCode::not_found);
  store_->unpin(kImage, 1);  // harmless
}

TEST_F(VersionStoreTest, EvictsLeastRecentlyUsedFirst) {
  for (const int version : {1, 2, 3, 4}) ASSERT_TRUE(publish("v" + std::to_string(version), kImage, version));
  const auto used = [&](int version, std::int64_t seconds) {
    const std::array<timespec, 2> times{timespec{seconds, 0}, timespec{seconds, 0}};
    ::utimensat(AT_FDCWD, (store_->machine_path(kImage, version).parent_path() / "info.json").c_str(),
                times.data(), 0);
  };
  used(1, 5000);
  used(2, 3000);
  used(3, 4000);
  store_->touch(kImage, 2);  // now is later than all of them
  ASSERT_TRUE(store_->set_current(kImage, 4));
  ASSERT_TRUE(store_->pin(kImage, 3));
  const auto order = store_->eviction_candidates().value();
  ASSERT_EQ(order.size(), 2U);
  EXPECT_EQ(order[0].info.version, 1);
  EXPECT_EQ(order[0].last_used_ms, 5'000'000);
  EXPECT_EQ(order[1].info.version, 2);
  EXPECT_GT(store_->allocated_bytes().value(), 0U);
}

TEST_F(VersionStoreTest, ACacheMayLoseItsCurrentVersion) {
  reopen({.is_cache = true});
  ASSERT_TRUE(publish("v1", kImage, 1));
  ASSERT_TRUE(store_->set_current(kImage, 1));
  EXPECT_EQ(store_->eviction_candidates()->size(), 1U);
  ASSERT_TRUE(store_->remove(kImage, 1));
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(dir_ / "images" / kImage)));
}

TEST_F(VersionStoreTest, StagingNamesAreChecked) {
  EXPECT_EQ(store_->staging("IMG00000001.3.part").value(), dir_ / "tmp" / "staging" / "IMG00000001.3.part");
  for (const std::string name : {"", ".", "..", "a/b", ".hidden", "a b", "a\n"}) {
    EXPECT_EQ(store_->staging(name).error().code, ErrorCode::invalid_argument) << name;
  }
  EXPECT_FALSE(store_->staging(std::string(121, 'x')));
}

TEST_F(VersionStoreTest, APrefixHasOneOwner) {
  const auto second = VersionStore::open(dir_.path());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::conflict);
  EXPECT_THAT(second.error().message, HasSubstr("own prefix"));
}

TEST_F(VersionStoreTest, ADamagedVersionIsNotListedAndCanBePublishedAgain) {
  ASSERT_TRUE(publish("disk", kImage, 1));
  const auto machine = store_->machine_path(kImage, 1);
  fs::permissions(machine, static_cast<fs::perms>(0644));
  fs::resize_file(machine, 2);
  EXPECT_EQ(store_->find(kImage, 1).error().code, ErrorCode::corrupt);
  EXPECT_THAT(versions(), IsEmpty());
  ASSERT_TRUE(publish("disk", kImage, 1));
  EXPECT_EQ(slurp(machine), "disk");
}

TEST_F(VersionStoreTest, InfoAboutAnotherVersionIsCorrupt) {
  ASSERT_TRUE(publish("disk", kImage, 1));
  fs::rename(dir_ / "images" / kImage / "versions" / "1", dir_ / "images" / kImage / "versions" / "2");
  EXPECT_EQ(store_->find(kImage, 2).error().code, ErrorCode::corrupt);
}

TEST_F(VersionStoreTest, SpoiltInfoIsCorrupt) {
  ASSERT_TRUE(publish("disk", kImage, 1));
  const auto file = store_->machine_path(kImage, 1).parent_path() / "info.json";
  const auto good = slurp(file);
  for (const std::string& bad : {std::string(""), std::string("{}"), std::string("[1]"), good.substr(0, 40),
                                 std::string("{\"image\":7}"), std::string(70'000, ' ')}) {
    dir_.write(fs::relative(file, dir_.path()).string(), bad);
    EXPECT_FALSE(store_->find(kImage, 1)) << bad.substr(0, 40);
  }
}

// What a kill -9 between any two calls of publish() leaves behind; see version_recovery.cpp.
class KilledPublish : public VersionStoreTest {
 protected:
  fs::path work_ = dir_ / "tmp" / "publish" / "IMG00000001.1.abcdef";

  /// info.json as publish() would have written it.
  std::string info_json() {
    EXPECT_TRUE(publish("disk", kImage, 1));
    auto text = slurp(store_->machine_path(kImage, 1).parent_path() / "info.json");
    EXPECT_TRUE(store_->remove(kImage, 1));
    return text;
  }
};

TEST_F(KilledPublish, AfterMkdir) {
  const auto staged = stage("disk");
  fs::create_directory(work_);
  reopen();
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
  EXPECT_TRUE(store_->publish(staged, info_of("disk", kImage, 1)));
}

TEST_F(KilledPublish, WhileWritingInfo) {
  const auto staged = stage("disk");
  dir_.write("tmp/publish/IMG00000001.1.abcdef/.info.json.0011.tmp", "{\"ima");
  reopen();
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
  EXPECT_TRUE(store_->publish(staged, info_of("disk", kImage, 1)));
}

TEST_F(KilledPublish, BeforeTheStagedFileMoved) {
  const auto json = info_json();
  const auto staged = stage("disk");
  dir_.write("tmp/publish/IMG00000001.1.abcdef/info.json", json);
  reopen();
  EXPECT_THAT(versions(), IsEmpty());
  EXPECT_TRUE(fs::exists(staged));
  EXPECT_TRUE(store_->publish(staged, info_of("disk", kImage, 1)));
}

TEST_F(KilledPublish, AfterTheStagedFileMovedItIsFinished) {
  const auto json = info_json();
  dir_.write("tmp/publish/IMG00000001.1.abcdef/info.json", json);
  dir_.write("tmp/publish/IMG00000001.1.abcdef/machine", "disk");
  reopen();
  EXPECT_THAT(versions(), ElementsAre(1));
  EXPECT_EQ(slurp(store_->machine_path(kImage, 1)), "disk");
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
  // The caller does not know and tries again without its file.
  EXPECT_TRUE(store_->publish(dir_ / "tmp" / "staging" / "incoming", info_of("disk", kImage, 1)));
}

TEST_F(KilledPublish, AShortMachineIsNotFinished) {
  const auto json = info_json();
  dir_.write("tmp/publish/IMG00000001.1.abcdef/info.json", json);
  dir_.write("tmp/publish/IMG00000001.1.abcdef/machine", "di");
  reopen();
  EXPECT_THAT(versions(), IsEmpty());
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
}

TEST_F(KilledPublish, WhatIsPublishedMeanwhileStays) {
  const auto json = info_json();
  ASSERT_TRUE(publish("other", kImage, 1));
  dir_.write("tmp/publish/IMG00000001.1.abcdef/info.json", json);
  dir_.write("tmp/publish/IMG00000001.1.abcdef/machine", "disk");
  reopen();
  EXPECT_EQ(slurp(store_->machine_path(kImage, 1)), "other");
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
}

TEST_F(VersionStoreTest, OpenClearsTrashAndHalfMadeLinks) {
  ASSERT_TRUE(publish("one", kImage, 1));
  dir_.write("tmp/trash/1.aa/machine", "old");
  fs::create_symlink("versions/1/machine", dir_ / "images" / kImage / ".machine.0123");
  reopen();
  EXPECT_THAT(names_in(dir_ / "tmp" / "trash"), IsEmpty());
  EXPECT_THAT(names_in(dir_ / "images" / kImage), ElementsAre("versions"));
}

TEST_F(VersionStoreTest, OpenSweepsOnlyOldStaging) {
  stage("new", "young.part");
  stage("old", "old.part");
  dir_.write("tmp/staging/workdir/deep/file", "young inside");
  const auto long_ago = fs::file_time_type::clock::now() - std::chrono::hours(100);
  fs::last_write_time(dir_ / "tmp" / "staging" / "old.part", long_ago);
  fs::last_write_time(dir_ / "tmp" / "staging" / "workdir", long_ago);
  reopen();
  EXPECT_THAT(names_in(dir_ / "tmp" / "staging"), ElementsAre("workdir", "young.part"));
}

TEST_F(VersionStoreTest, PublishesOfOneVersionFromManyThreads) {
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      const auto staged = stage("disk", "staged" + std::to_string(i));
      threads.emplace_back([this, staged, &good] {
        if (store_->publish(staged, info_of("disk", kImage, 1))) ++good;
      });
    }
  }
  EXPECT_EQ(good, 8);
  EXPECT_THAT(names_in(dir_ / "tmp" / "staging"), IsEmpty());
  EXPECT_THAT(versions(), ElementsAre(1));
}

}  // namespace
}  // namespace educloud::image
