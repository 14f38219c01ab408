#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/image/digest.hpp"
#include "common/image/qemu_img.hpp"
#include "common/sys/file.hpp"
#include "support/temp_dir.hpp"

namespace educloud::image {
namespace {

using educloud::testing::slurp;
using educloud::testing::TempDir;

/// Data at 0 and at 40 MiB, holes between and at the end: 64 MiB + 5.
std::filesystem::path make_sparse(const TempDir& dir) {
  const auto file = dir.write("sparse", "begin");
  std::filesystem::resize_file(file, (64 << 20) + 5);
  auto fd = sys::open_file(file, O_RDWR);
  EXPECT_TRUE(sys::pwrite_all(fd->get(), std::string(70'000, 'm'), 40 << 20));
  return file;
}

TEST(Digest, KnownValues) {
  Sha256 hash;
  EXPECT_EQ(hash.finish(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  hash.update("a");
  hash.update("bc");
  EXPECT_EQ(hash.finish(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest, ZerosWithoutHoldingThem) {
  Sha256 fed, told;
  fed.update(std::string(3'000'000, '\0'));
  told.update_zeros(3'000'000);
  EXPECT_EQ(fed.finish(), told.finish());
}

TEST(Digest, OfAFileWithHolesIsThatOfItsBytes) {
  const TempDir dir;
  const auto file = make_sparse(dir);
  Sha256 whole;
  whole.update(slurp(file));
  std::vector<std::uint64_t> seen;
  const auto digest = sha256_file(file, [&seen](std::uint64_t done, std::uint64_t total) {
    EXPECT_EQ(total, (64U << 20) + 5);
    seen.push_back(done);
  });
  EXPECT_EQ(digest.value(), whole.finish());
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back(), (64U << 20) + 5);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST(Digest, EmptyMissingAndCancelled) {
  const TempDir dir;
  EXPECT_EQ(sha256_file(dir.write("empty", "")).value().substr(0, 8), "e3b0c442");
  EXPECT_EQ(sha256_file(dir / "none").error().code, ErrorCode::not_found);
  const auto stop = std::make_unique<std::stop_source>();
  stop->request_stop();
  EXPECT_EQ(sha256_file(make_sparse(dir), {}, stop->get_token()).error().code, ErrorCode::cancelled);
}

TEST(Digest, HexForm) {
  EXPECT_TRUE(is_sha256_hex(std::string(64, 'a')));
  EXPECT_FALSE(is_sha256_hex(std::string(63, 'a')));
  EXPECT_FALSE(is_sha256_hex(std::string(64, 'A')));
  EXPECT_FALSE(is_sha256_hex(std::string(64, 'g')));
}

TEST(PercentParser, FindsTheNumbersInAnyPieces) {
  std::vector<int> seen;
  const OnPercent note = [&seen](int percent) { seen.push_back(percent); };
  PercentParser parser(note);
  for (const std::string_view piece :
       {"    (0.0", "0/100%)\r    (1.01/1", "00%)\r", "    (1.99/100%)\r", "(57.3/100%)\r(100.00/100%)\n"}) {
    parser.feed(piece);
  }
  parser.feed("(" + std::string(1000, '9') + "/(abc/(101/");
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 57, 100}));
}

}  // namespace
}  // namespace educloud::image
