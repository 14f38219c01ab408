#include <sys/stat.h>

#include "integration/cli_image/fixture.hpp"

namespace educloud::cli {
namespace {

using ::testing::HasSubstr;

class Download : public CliImageTest {};

std::uint64_t allocated(const std::filesystem::path& file) {
  struct stat status {};
  EXPECT_EQ(::stat(file.c_str(), &status), 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

TEST_F(Download, BringsTheDiskAndLeavesItsHolesHoles) {
  const std::string disk = sample_disk(1);
  publish(1, disk);
  const auto report = download(1, dir / "disk");
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(content(dir / "disk"), disk);
  EXPECT_EQ(report->disk_bytes, disk.size());
  EXPECT_EQ(report->kept_bytes, 0u);
  EXPECT_EQ(report->fetched_bytes, report->data_bytes);
  EXPECT_LE(allocated(dir / "disk"), report->data_bytes + (1u << 20));
  EXPECT_LT(report->data_bytes, disk.size() * 3 / 4);
}

TEST_F(Download, GoesOnWhereItWasCut) {
  const std::string disk = sample_disk(2);
  publish(1, disk);
  source.fail_after = 150;
  const auto cut = download(1, dir / "disk", std::chrono::seconds{1});
  ASSERT_FALSE(cut);
  EXPECT_TRUE(is_retryable(cut.error().code)) << cut.error().message;
  source.fail_after = -1;
  const auto report = download(1, dir / "disk");
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(content(dir / "disk"), disk);
  EXPECT_GT(report->kept_bytes, 0u);
  EXPECT_EQ(report->kept_bytes + report->fetched_bytes, report->data_bytes);
}

TEST_F(Download, KeepsNothingThatIsNotRight) {
  const std::string disk = sample_disk(3);
  publish(1, disk);
  // Another disk, longer, with data where this one has holes, and one chunk that is the same.
  std::string other = sample_disk(4, disk.size() + 100'000);
  const auto same = disk.find_first_not_of('\0') / chunk::kChunkBytes * chunk::kChunkBytes;
  other.replace(same, chunk::kChunkBytes, disk, same, chunk::kChunkBytes);
  dir.write("disk", other);
  const auto report = download(1, dir / "disk");
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(content(dir / "disk") == disk);
  EXPECT_GE(report->kept_bytes, chunk::kChunkBytes);
}

TEST_F(Download, RefusesWhatIsForged) {
  const std::string disk = sample_disk(5);
  publish(1, disk);
  const auto at = disk.find_first_not_of('\0') / chunk::kChunkBytes * chunk::kChunkBytes;
  source.forged = chunk::ChunkId::of(std::string_view(disk).substr(at, chunk::kChunkBytes));
  const auto report = download(1, dir / "disk");
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::corrupt) << report.error().message;
  publish(2, disk);
  digests[2] = chunk::ChunkId::of(std::string("another"));
  EXPECT_EQ(download(2, dir / "disk2").error().code, ErrorCode::corrupt) << "not the manifest that clc names";
}

TEST_F(Download, TakesDisksOfOddSizes) {
  int version = 0;
  for (const std::size_t size : {0u, 1u, 65536u, 65537u}) {
    const std::string disk(size, 'x');
    publish(++version, disk);
    const auto file = dir / ("disk" + std::to_string(size));
    const auto report = download(version, file);
    ASSERT_TRUE(report) << size << ": " << report.error().message;
    EXPECT_EQ(content(file), disk);
  }
}

TEST_F(Download, AnExpiredUrlIsRefused) {
  publish(1, "x");
  expired = true;
  EXPECT_EQ(download(1, dir / "disk").error().code, ErrorCode::permission_denied);
}

}  // namespace
}  // namespace educloud::cli
