// Payloads, companions, versions that stand on others, and replace().
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/image/digest.hpp"
#include "common/image/version_store.hpp"
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

class VersionForms : public ::testing::Test {
 protected:
  VersionForms() { reopen({}); }

  void reopen(VersionStore::Options options) {
    store_.reset();
    auto opened = VersionStore::open(dir_.path(), options);
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = std::move(*opened);
  }

  static VersionInfo info_of(int version, std::string stands_on = "", std::string_view image = kImage) {
    VersionInfo info;
    info.image = image;
    info.version = version;
    Sha256 hash;
    hash.update(info.image + std::to_string(version));
    info.digest = hash.finish();
    info.size_bytes = 65536;
    info.virtual_size_bytes = 1 << 20;
    info.format = stands_on.empty() ? "raw" : "qcow2";
    info.stands_on = std::move(stands_on);
    return info;
  }

  fs::path stage(std::string_view content) { return dir_.write("tmp/staging/incoming", content); }

  Result<> publish(const VersionInfo& info, const Companions& companions = {}) {
    return store_->publish(stage("disk" + std::to_string(info.version)), info, companions);
  }

  static std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  fs::path version_dir(int version) { return store_->machine_path(kImage, version).parent_path(); }
  static ErrorCode code_of(const Result<>& result) {
    return result ? ErrorCode::internal : result.error().code;
  }

  const educloud::testing::TempDir dir_;
  std::unique_ptr<VersionStore> store_;
};

TEST_F(VersionForms, AnotherPayloadHasItsOwnLink) {
  reopen({.payload = "manifest"});
  ASSERT_TRUE(publish(info_of(1)));
  EXPECT_EQ(store_->machine_path(kImage, 1), version_dir(1) / "manifest");
  EXPECT_EQ(slurp(store_->file_path(kImage, 1, "manifest")), "disk1");
  ASSERT_TRUE(store_->set_current(kImage, 1));
  EXPECT_EQ(store_->current(kImage).value(), 1);
  EXPECT_EQ(slurp(dir_ / "images" / kImage / "manifest"), "disk1");
  EXPECT_THAT(names_in(dir_ / "images" / kImage), ElementsAre("manifest", "versions"));
  EXPECT_FALSE(VersionStore::open(dir_.path() / "x", {.payload = "../up"}));
  EXPECT_FALSE(VersionStore::open(dir_.path() / "x", {.payload = "info.json"}));
}

TEST_F(VersionForms, CompanionsComeAlong) {
  const std::string map(100'000, 'm');
  ASSERT_TRUE(publish(info_of(1), {{"manifest", map}, {"note.txt", ""}}));
  EXPECT_THAT(names_in(version_dir(1)), ElementsAre("info.json", "machine", "manifest", "note.txt"));
  EXPECT_EQ(slurp(store_->file_path(kImage, 1, "manifest")), map);
  struct stat status {};
  ASSERT_EQ(::stat(store_->file_path(kImage, 1, "manifest").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0444U);
  EXPECT_GE(store_->allocated_bytes().value(), map.size());
  for (const std::string name : {"machine", "info.json", "", "../x", "a/b", ".x", "X", "a b"}) {
    EXPECT_EQ(code_of(publish(info_of(2), {{name, "x"}})), ErrorCode::invalid_argument) << name;
  }
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
}

TEST_F(VersionForms, AFileOfAnotherLengthIsCorrupt) {
  ASSERT_TRUE(publish(info_of(1), {{"manifest", "four"}}));
  ASSERT_TRUE(publish(info_of(2), {{"manifest", "four"}}));
  const auto manifest = store_->file_path(kImage, 1, "manifest");
  fs::permissions(manifest, static_cast<fs::perms>(0644));
  fs::resize_file(manifest, 3);
  EXPECT_EQ(store_->find(kImage, 1).error().code, ErrorCode::corrupt);
  fs::remove(store_->file_path(kImage, 2, "manifest"));
  EXPECT_EQ(store_->find(kImage, 2).error().code, ErrorCode::not_found);
  EXPECT_TRUE(publish(info_of(1), {{"manifest", "five!"}}));
  EXPECT_EQ(slurp(manifest), "five!");
}

TEST_F(VersionForms, ADiskOfNothingIsAVersion) {
  auto info = info_of(1);
  info.size_bytes = info.virtual_size_bytes = 0;
  ASSERT_TRUE(store_->publish(stage(""), info));
  info.created_at = store_->find(kImage, 1)->created_at;
  EXPECT_EQ(store_->find(kImage, 1).value(), info);
}

TEST_F(VersionForms, WhatIsStoodOnStays) {
  ASSERT_TRUE(publish(info_of(1)));
  ASSERT_TRUE(publish(info_of(2, "IMG00000001/1")));
  ASSERT_TRUE(publish(info_of(1, "IMG00000001/2", kOther)));
  EXPECT_EQ(store_->find(kImage, 2)->stands_on, "IMG00000001/1");
  const auto candidates = store_->eviction_candidates().value();
  ASSERT_EQ(candidates.size(), 1U);
  EXPECT_EQ(candidates[0].info.image, kOther);
  const auto refused = store_->remove(kImage, 1);
  EXPECT_EQ(code_of(refused), ErrorCode::conflict);
  EXPECT_THAT(refused.error().message, HasSubstr("IMG00000001 version 2 stands on IMG00000001/1"));
  EXPECT_EQ(code_of(store_->remove(kImage, 2)), ErrorCode::conflict);
  EXPECT_EQ(code_of(store_->remove_image(kImage)), ErrorCode::conflict);
  EXPECT_TRUE(store_->remove(kOther, 1));
  EXPECT_TRUE(store_->remove_image(kImage)) << "its own versions go together";
}

TEST_F(VersionForms, NothingStandsOnWhatIsNotHere) {
  EXPECT_EQ(code_of(publish(info_of(2, "IMG00000001/1"))), ErrorCode::conflict);
  for (const std::string bad :
       {"IMG00000001", "IMG00000001/", "IMG00000001/01", "/1", "x/1", "IMG00000001/2"}) {
    EXPECT_EQ(code_of(publish(info_of(2, bad))), ErrorCode::invalid_argument) << bad;
  }
  EXPECT_TRUE(fs::exists(dir_ / "tmp" / "staging" / "incoming"));
}

TEST_F(VersionForms, ReplaceSwapsTheFormInOneStep) {
  ASSERT_TRUE(publish(info_of(1)));
  ASSERT_TRUE(publish(info_of(2, "IMG00000001/1"), {{"manifest", "map"}}));
  ASSERT_TRUE(store_->set_current(kImage, 2));
  ASSERT_TRUE(store_->pin(kImage, 2));
  const std::array<timespec, 2> times{timespec{5000, 0}, timespec{5000, 0}};
  ::utimensat(AT_FDCWD, (version_dir(2) / "info.json").c_str(), times.data(), 0);
  const auto before = store_->find(kImage, 2).value();
  std::ifstream held(store_->machine_path(kImage, 2));  // as a VM that runs on it
  auto flat = info_of(2);
  ASSERT_TRUE(store_->replace(stage("flat"), flat, {{"manifest", "map"}}));
  EXPECT_EQ(slurp(dir_ / "images" / kImage / "machine"), "flat");
  std::string old;
  held >> old;
  EXPECT_EQ(old, "disk2");
  flat.created_at = before.created_at;
  EXPECT_EQ(store_->find(kImage, 2).value(), flat);
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
  EXPECT_THAT(names_in(dir_ / "tmp" / "trash"), IsEmpty());
  EXPECT_TRUE(store_->remove(kImage, 1));
  store_->unpin(kImage, 2);
  reopen({.is_cache = true});
  EXPECT_EQ(store_->eviction_candidates()->at(0).last_used_ms, 5'000'000);
}

TEST_F(VersionForms, ReplaceNeedsTheSameVersion) {
  EXPECT_EQ(code_of(store_->replace(stage("flat"), info_of(1))), ErrorCode::not_found);
  ASSERT_TRUE(publish(info_of(1)));
  auto other = info_of(1);
  other.digest = info_of(2).digest;
  const auto staged = stage("flat");
  EXPECT_EQ(code_of(store_->replace(staged, other)), ErrorCode::conflict);
  EXPECT_EQ(slurp(staged), "flat");
  EXPECT_EQ(slurp(store_->machine_path(kImage, 1)), "disk1");
}

TEST_F(VersionForms, AKilledReplaceLeavesOneWholeForm) {
  ASSERT_TRUE(publish(info_of(1)));
  // Before the swap and after it, the same is in tmp/publish: a whole form of the version.
  fs::copy(version_dir(1), dir_ / "tmp" / "publish" / "IMG00000001.1.aabbcc");
  reopen({});
  EXPECT_EQ(slurp(store_->machine_path(kImage, 1)), "disk1");
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
}

TEST_F(VersionForms, AKilledPublishWaitsForItsCompanions) {
  ASSERT_TRUE(publish(info_of(1), {{"manifest", "map"}}));
  const auto work = dir_ / "tmp" / "publish" / "IMG00000001.1.aabbcc";
  fs::copy(version_dir(1), work);
  ASSERT_TRUE(store_->remove(kImage, 1));
  const auto lacking = dir_ / "tmp" / "publish" / "IMG00000001.1.ddeeff";
  fs::copy(work, lacking);
  fs::remove(lacking / "manifest");
  reopen({});
  EXPECT_TRUE(store_->find(kImage, 1));
  EXPECT_EQ(slurp(store_->file_path(kImage, 1, "manifest")), "map");
  EXPECT_THAT(names_in(dir_ / "tmp" / "publish"), IsEmpty());
}

TEST_F(VersionForms, VersionsFromBeforeAreStillThere) {
  const std::string digest = info_of(1).digest;
  dir_.write("images/IMG00000001/versions/1/machine", "old disk");
  dir_.write(
      "images/IMG00000001/versions/1/info.json",
      R"({"v":1,"image":"IMG00000001","version":1,"digest":")" + digest +
          R"(","size_bytes":8,"virtual_size_bytes":1048576,"format":"qcow2","parent":"","created_at":5})");
  fs::create_symlink("versions/1/machine", dir_ / "images" / kImage / "machine");
  for (const std::string payload : {"machine", "manifest"}) {
    reopen({.payload = payload});
    const auto found = store_->find(kImage, 1);
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(found->format, "qcow2");
    EXPECT_EQ(found->stands_on, "");
    EXPECT_EQ(store_->current(kImage).value(), 1);
  }
  ASSERT_TRUE(publish(info_of(2)));
  ASSERT_TRUE(store_->set_current(kImage, 2));
  EXPECT_THAT(names_in(dir_ / "images" / kImage), ElementsAre("manifest", "versions"));
  EXPECT_TRUE(store_->remove(kImage, 1));
  dir_.write("images/IMG00000001/versions/3/machine", "another length");
  fs::copy(version_dir(2) / "info.json", version_dir(3) / "info.json");
  EXPECT_FALSE(store_->find(kImage, 3));
}

}  // namespace
}  // namespace educloud::image
