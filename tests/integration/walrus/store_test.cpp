// Ingest, sweep and fsck on a store of their own.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "common/sys/file.hpp"
#include "integration/walrus/fixture.hpp"
#include "walrus/store/catalogue.hpp"
#include "walrus/store/chunk_service.hpp"
#include "walrus/store/ingest.hpp"
#include "walrus/store/publish.hpp"
#include "walrus/store/sweep.hpp"

namespace educloud::walrus {
namespace {

namespace fs = std::filesystem;
using chunk::ChunkId;
using std::chrono::seconds;

class Store : public ::testing::Test {
 protected:
  void SetUp() override { open(); }
  void open() {
    chunks_.reset();
    versions_.reset();
    image::VersionStore::Options options;
    options.payload = "manifest";
    auto versions = image::VersionStore::open(prefix(), options);
    ASSERT_TRUE(versions.has_value()) << versions.error().message;
    versions_ = std::move(*versions);
    auto chunks = chunk::ChunkStore::open(chunk_folder(prefix()), {});
    ASSERT_TRUE(chunks.has_value()) << chunks.error().message;
    chunks_ = std::move(*chunks);
    publisher_ = std::make_unique<Publisher>(*versions_, *chunks_, 1ull << 40);
  }
  fs::path prefix() const { return dir_ / "storage"; }
  Result<IngestResult> ingest_file(const fs::path& file, std::stop_token stop = {}) {
    IngestRequest request;
    request.raw = file;
    request.disk_bytes = fs::file_size(file);
    request.in_progress = &in_progress_;
    return ingest(*chunks_, request, stop);
  }
  /// The disk becomes that version.
  void make_version(int version, const std::string& disk) {
    auto done = ingest_file(dir_.write("disk", disk));
    ASSERT_TRUE(done.has_value()) << done.error().message;
    PublishRequest request;
    request.imgid = kImage;
    request.version = version;
    request.manifest = done->map.manifest().encode();
    auto receipt = publisher_->publish(request, {});
    ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  }
  std::string content(int version) {
    const auto file = dir_ / ("export" + std::to_string(++exports_));
    auto done = export_version({prefix(), kImage, version, file});
    EXPECT_TRUE(done.has_value()) << done.error().message;
    return educloud::testing::slurp(file);
  }
  FsckReport check() {
    auto report = fsck({prefix()});
    EXPECT_TRUE(report.has_value()) << (report ? "" : report.error().message);
    return report ? *report : FsckReport{};
  }
  std::vector<fs::path> packs() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(chunk_folder(prefix()) / "packs")) {
      found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  educloud::testing::TempDir dir_;
  InProgress in_progress_;
  std::unique_ptr<image::VersionStore> versions_;
  std::unique_ptr<chunk::ChunkStore> chunks_;
  std::unique_ptr<Publisher> publisher_;
  int exports_ = 0;
};

/// Flips one bit of a file that may be read-only; again to undo it.
void flip(const fs::path& file, std::uint64_t offset, int bit) {
  const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  char byte = 0;
  ASSERT_EQ(::pread(fd, &byte, 1, static_cast<off_t>(offset)), 1);
  byte = static_cast<char>(byte ^ (1 << bit));
  ASSERT_EQ(::pwrite(fd, &byte, 1, static_cast<off_t>(offset)), 1);
  ::close(fd);
}

TEST_F(Store, TenGibibytesWithLittleDataTakeSeconds) {
  const auto file = dir_ / "sparse";
  const auto data = noise(4 << 20, 5);
  {
    auto fd = sys::open_file(file, O_RDWR | O_CREAT);
    ASSERT_EQ(::ftruncate(fd->get(), 10ll << 30), 0);
    for (int i = 0; i < 16; ++i) {
      ASSERT_TRUE(sys::pwrite_all(fd->get(), data.substr(static_cast<std::size_t>(i) * 100, 2 << 20),
                                  static_cast<std::uint64_t>(i) * 600 * 1000 * 1000)
                      .has_value());
    }
  }
  reset_peak();
  const auto before = peak_mib();
  const auto begun = std::chrono::steady_clock::now();
  auto done = ingest_file(file);
  const auto took = std::chrono::steady_clock::now() - begun;
  ASSERT_TRUE(done.has_value()) << done.error().message;
  EXPECT_LT(took, seconds(5));
  EXPECT_LT(peak_mib() - before, 64 * kMemoryFactor);
  EXPECT_LT(done->read_bytes, 33u << 20) << "holes are not read";
  EXPECT_EQ(done->map.disk_bytes(), 10ull << 30);
  auto again = ingest_file(file);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->new_chunks, 0u) << "known chunks are not compressed again";
  EXPECT_EQ(again->map.manifest(), done->map.manifest());
}

TEST_F(Store, ManySmallPiecesBetweenHoles) {
  const auto file = dir_ / "pieces";
  {
    auto fd = sys::open_file(file, O_RDWR | O_CREAT);
    ASSERT_EQ(::ftruncate(fd->get(), 400 << 20), 0);
    for (std::uint64_t at = 0; at < (400u << 20); at += 20480) {
      ASSERT_TRUE(sys::pwrite_all(fd->get(), "piece " + std::to_string(at), at).has_value());
    }
  }
  auto done = ingest_file(file);
  ASSERT_TRUE(done.has_value()) << done.error().message;
  EXPECT_EQ(done->map.manifest(), CutDisk(educloud::testing::slurp(file)).map.manifest());
}

TEST_F(Store, CancelledIngestEndsSoonAndCanBeRepeated) {
  const auto file = dir_.write("disk", noise(200 << 20, 1));
  std::stop_source stop;
  IngestRequest request;
  request.raw = file;
  request.disk_bytes = fs::file_size(file);
  request.on_bytes = [&](std::uint64_t, std::uint64_t) { stop.request_stop(); };
  auto cut = ingest(*chunks_, request, stop.get_token());
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::cancelled);
  auto done = ingest_file(file);
  ASSERT_TRUE(done.has_value());
  EXPECT_LT(done->new_chunks, 3200u) << "what came before the stop is still there";
}

TEST_F(Store, SweepTakesWhatNoVersionNeeds) {
  const auto keep = noise(8 << 20, 1);
  make_version(1, keep.substr(0, 4 << 20) + noise(12 << 20, 2));
  make_version(2, keep);
  const auto before = chunks_->stats()->stored_bytes;
  ASSERT_TRUE(versions_->remove(kImage, 1).has_value());
  ASSERT_TRUE(sweep(prefix(), *chunks_, &in_progress_, seconds(3600)).has_value());
  EXPECT_EQ(chunks_->stats()->stored_bytes, before) << "the grace is not over";
  std::uint64_t freed = 0;
  EXPECT_TRUE(eventually([&] {
    auto report = sweep(prefix(), *chunks_, &in_progress_, seconds(0));
    freed += report ? report->freed_bytes : 0;
    return chunks_->stats()->stored_bytes < before - (11u << 20);
  }));
  EXPECT_GT(freed, 11u << 20);
  EXPECT_EQ(content(2), keep);
  EXPECT_TRUE(check().is_clean());
  open();
  EXPECT_EQ(content(2), keep);
}

TEST_F(Store, SweepSparesAnImportUnderWay) {
  const CutDisk disk(noise(2 << 20, 3));
  std::vector<ChunkId> ids = disk.ids();
  ASSERT_TRUE(ingest_file(dir_.write("disk", noise(2 << 20, 3))).has_value());
  auto handle = in_progress_.add([&] { return ids; });
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(sweep(prefix(), *chunks_, &in_progress_, seconds(0)).has_value());
  }
  auto missing = chunks_->missing(ids, false);
  EXPECT_EQ(std::count(missing->begin(), missing->end(), true), 0);
  handle.reset();
  EXPECT_TRUE(eventually([&] {
    EXPECT_TRUE(sweep(prefix(), *chunks_, &in_progress_, seconds(0)).has_value());
    return chunks_->stats()->chunks == 0;
  }));
}

TEST_F(Store, SweepRefusesToGuessWhatADamagedVersionNeeds) {
  make_version(1, noise(2 << 20, 1));
  make_version(2, noise(2 << 20, 2));
  const auto manifest = prefix() / "images" / kImage / "versions/1/manifest";
  flip(manifest, fs::file_size(manifest) - 1, 0);
  auto refused = sweep(prefix(), *chunks_, &in_progress_, seconds(0));
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("IMG01234567/1"), std::string::npos) << refused.error().message;
  flip(manifest, fs::file_size(manifest) - 1, 0);
  EXPECT_TRUE(sweep(prefix(), *chunks_, &in_progress_, seconds(0)).has_value());
  EXPECT_TRUE(check().is_clean());
}

TEST_F(Store, WhatIsSaidToBeHereIsDurable) {
  StoreSink::Options options;
  options.prefix = prefix();
  StoreSink sink(*chunks_, *publisher_, options);
  const transfer::ChunkCaller caller{};
  const std::string raw = noise(chunk::kChunkBytes, 5);
  std::string frame;
  auto header = chunk::FrameEncoder{}.append(raw, frame);
  ASSERT_TRUE(header.has_value());
  // A request that is cut after this frame: nobody calls stored().
  const std::span<const char> stored(frame.data() + chunk::kFrameHeaderBytes, header->stored_bytes);
  ASSERT_TRUE(sink.store(caller, *header, stored).has_value());
  const auto is_durable = [&] {  // a second opener sees what a restart after a kill would
    auto other = chunk::ChunkStore::open_read_only(chunk_folder(prefix()));
    EXPECT_TRUE(other.has_value());
    auto missing = (*other)->missing(std::array{header->id}, false);
    return missing.has_value() && !missing->front();
  };
  EXPECT_FALSE(is_durable());
  auto missing = sink.missing(caller, {header->id});
  ASSERT_TRUE(missing.has_value());
  EXPECT_FALSE(missing->front());
  EXPECT_TRUE(is_durable());
}

TEST_F(Store, FsckNamesEveryFlippedBit) {
  // Small frames of several kinds, shared and not.
  std::string disk(3 << 20, '\0');
  for (std::size_t i = 0; i < disk.size(); i += chunk::kChunkBytes) {
    const auto text = "chunk " + std::to_string(i);
    disk.replace(i, text.size(), text);
  }
  make_version(1, disk);
  disk.replace(0, 304, noise(304, 4));
  make_version(2, disk);
  ASSERT_TRUE(check().is_clean());
  ASSERT_EQ(packs().size(), 1u);
  const auto pack = packs().front();
  const auto size = fs::file_size(pack);
  std::mt19937 random(11);
  int looked = 0;
  for (std::uint64_t at = 0; at < size; at += 1 + random() % 23) {
    const int bit = static_cast<int>(random() % 8);
    flip(pack, at, bit);
    const auto report = check();
    ++looked;
    ASSERT_FALSE(report.is_clean()) << "byte " << at << " bit " << bit;
    const auto& damage = report.damages.front();
    EXPECT_EQ(damage.pack, pack.filename()) << at;
    EXPECT_LE(damage.offset, at);
    EXPECT_LT(at - damage.offset, 5000u);
    EXPECT_FALSE(damage.versions.empty()) << at;
    flip(pack, at, bit);
  }
  EXPECT_GT(looked, 100);
  EXPECT_TRUE(check().is_clean());
}

TEST_F(Store, FsckNamesDamagedManifestsAndTheVersionsThatAreHit) {
  const auto shared = noise(1 << 20, 1);
  make_version(1, shared);
  make_version(2, shared + noise(1 << 20, 2));
  const auto manifest = prefix() / "images" / kImage / "versions/2/manifest";
  for (std::uint64_t at = 0; at < fs::file_size(manifest); ++at) {
    flip(manifest, at, static_cast<int>(at % 8));
    const auto report = check();
    ASSERT_EQ(report.damages.size(), 1u) << at;
    EXPECT_EQ(report.damages[0].kind, FsckDamage::Kind::manifest);
    EXPECT_EQ(report.damages[0].versions, std::vector<std::string>{"IMG01234567/2"});
    flip(manifest, at, static_cast<int>(at % 8));
  }
  // The first chunk is in both.
  flip(packs().front(), 100, 3);
  auto report = check();
  ASSERT_EQ(report.damages.size(), 1u);
  EXPECT_EQ(report.damages[0].versions, (std::vector<std::string>{"IMG01234567/1", "IMG01234567/2"}));
  EXPECT_EQ(report.damages[0].id, ChunkId::of(shared.substr(0, chunk::kChunkBytes)).hex());
  // And a chunk that is gone altogether.
  flip(packs().front(), 100, 3);
  ASSERT_TRUE(chunks_->forget(ChunkId::of(shared.substr(0, chunk::kChunkBytes))).has_value());
  ASSERT_TRUE(chunks_->flush().has_value());
  report = check();
  ASSERT_EQ(report.damages.size(), 1u);
  EXPECT_EQ(report.damages[0].kind, FsckDamage::Kind::missing);
  EXPECT_EQ(report.damages[0].versions.size(), 2u);
}

TEST_F(Store, ExportNamesTheDamagedChunkAndLeavesNothing) {
  make_version(1, noise(1 << 20, 1));
  flip(packs().front(), 3000, 1);
  const auto file = dir_ / "out";
  auto refused = export_version({prefix(), kImage, 1, file});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::corrupt) << refused.error().message;
  EXPECT_FALSE(fs::exists(file));
  for (const auto& entry : fs::directory_iterator(dir_.path())) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
  }
}

TEST_F(Store, VersionOfAnOlderFormatIsNamedAndLeftAlone) {
  make_version(1, noise(1 << 20, 1));
  dir_.write("storage/images/IMG0000000a/versions/1/machine", "an old file");
  const auto report = check();
  EXPECT_TRUE(report.is_clean());
  EXPECT_EQ(report.older_format, std::vector<std::string>{"IMG0000000a/1"});
  EXPECT_TRUE(sweep(prefix(), *chunks_, &in_progress_, seconds(0)).has_value());
  auto refused = export_version({prefix(), "IMG0000000a", 1, dir_ / "out"});
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
}

TEST_F(Store, SweepOfAStoreInUseIsRefused) {
  make_version(1, noise(1 << 20, 1));
  EXPECT_EQ(sweep_offline(prefix(), seconds(0)).error().code, ErrorCode::conflict);
  chunks_.reset();
  versions_.reset();
  EXPECT_TRUE(sweep_offline(prefix(), seconds(0)).has_value());
}

}  // namespace
}  // namespace educloud::walrus
