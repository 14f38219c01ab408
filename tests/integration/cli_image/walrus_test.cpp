#include <fcntl.h>

#include "integration/cli_image/fixture.hpp"
#include "walrus/store/catalogue.hpp"
#include "walrus/store/ingest.hpp"
#include "walrus/store/publish.hpp"

namespace educloud::cli {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// A store of walrus with two versions, and the config that names it.
class WalrusStore : public CliImageTest {
 protected:
  void SetUp() override {
    CliImageTest::SetUp();
    prefix_ = dir / "storage";
    config_ =
        dir.write("walrus.conf", "host = \"local\"\nprefix = \"" + prefix_.string() + "\"\nport = 8001\n");
    disks_[1] = sample_disk(1, 8u << 20);
    disks_[2] = disks_[1];
    disks_[2][5] = 'n';
    image::VersionStore::Options options;
    options.payload = "manifest";
    auto versions = image::VersionStore::open(prefix_, options);
    ASSERT_TRUE(versions) << versions.error().message;
    auto chunks = chunk::ChunkStore::open(walrus::chunk_folder(prefix_), {});
    ASSERT_TRUE(chunks) << chunks.error().message;
    walrus::Publisher publisher(**versions, **chunks, 1ull << 40);
    for (const auto& [version, disk] : disks_) {
      walrus::IngestRequest ingest;
      ingest.raw = dir.write("disk", disk);
      ingest.disk_bytes = disk.size();
      auto made = walrus::ingest(**chunks, ingest, {});
      ASSERT_TRUE(made) << made.error().message;
      walrus::PublishRequest publish;
      publish.imgid = kImage;
      publish.version = version;
      publish.manifest = made->map.manifest().encode();
      auto done = publisher.publish(publish, {});
      ASSERT_TRUE(done) << done.error().message;
    }
  }
  int walrus(std::vector<std::string> words) {
    words.insert(words.begin(), "walrus");
    words.insert(words.end(), {"--config", config_});
    return run(std::move(words));
  }

  std::filesystem::path prefix_;
  std::string config_;
  std::map<int, std::string> disks_;
};

TEST_F(WalrusStore, IsCheckedAndEachDamageNamed) {
  ASSERT_EQ(walrus({"fsck", "--json"}), 0) << err;
  EXPECT_EQ(json::parse(out)["clean"], true);
  EXPECT_EQ(json::parse(out)["versions"], 2);
  for (const auto& entry : std::filesystem::directory_iterator(prefix_ / "chunks" / "packs")) {
    auto file = sys::open_file(entry.path(), O_RDWR);
    ASSERT_TRUE(file);
    ASSERT_TRUE(sys::pwrite_all(file->get(), "flipped", entry.file_size() / 2));
  }
  EXPECT_EQ(walrus({"fsck"}), 1);
  EXPECT_THAT(out, HasSubstr("needed by IMG0123abcd/"));
  EXPECT_EQ(walrus({"fsck", "--json"}), 1);
  EXPECT_GE(json::parse(out)["damage_count"], 1);
}

TEST_F(WalrusStore, GivesVersionsBackAsFiles) {
  const std::string file = dir / "one.raw";
  ASSERT_EQ(walrus({"export", kImage, "--version", "2", "-o", file, "--json"}), 0) << err;
  EXPECT_EQ(json::parse(out)["version"], 2);
  EXPECT_TRUE(content(file) == disks_[2]);
  EXPECT_EQ(walrus({"export", kImage, "--version", "2", "-o", file}), 5);
  EXPECT_EQ(walrus({"export", kImage, "--version", "7", "-o", dir / "x"}), 4);
}

TEST_F(WalrusStore, TellsWhatItTakesAndCollectsGarbage) {
  ASSERT_EQ(walrus({"stats", "--json"}), 0) << err;
  const auto figures = json::parse(out);
  EXPECT_EQ(figures["versions"].size(), 2u);
  EXPECT_GT(figures["size_bytes"], figures["unique_bytes"]) << "what both share is kept once";
  ASSERT_EQ(walrus({"stats", kImage}), 0);
  EXPECT_THAT(out, HasSubstr("each chunk once"));
  ASSERT_EQ(walrus({"gc", "--grace", "0", "--json"}), 0) << err;
  EXPECT_EQ(json::parse(out)["removed"], 0);
  EXPECT_EQ(walrus({"fsck"}), 0) << out;
}

TEST_F(WalrusStore, WhatIsNotThereIsSaid) {
  EXPECT_EQ(run({"walrus", "fsck", "--config", dir / "no.conf"}), 4);
  EXPECT_EQ(run({"walrus", "fsck", "--prefix", dir / "nowhere"}), 4);
}

}  // namespace
}  // namespace educloud::cli
