#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>

#include "cc/disks/disk_returns.hpp"
#include "support/temp_dir.hpp"

namespace educloud::cc {
namespace {

constexpr std::size_t kSize = 64 * 1024;

/// The disk of one instance, and copies that come back for it.
class Returns : public ::testing::Test {
 protected:
  Returns() { std::ofstream(disk_) << std::string(kSize, 'a'); }

  Result<std::uint64_t> put(const std::string& give, std::uint64_t at, std::string_view bytes) {
    return returns_.put({instance_, give}, {disk_, kSize, kSize, at, at, bytes});
  }
  Result<bool> finish(const std::string& give) {
    return returns_.finish({instance_, give}, {disk_, kSize, kSize, kSize, kSize, {}});
  }
  std::filesystem::path back() const { return DiskReturns::beside(disk_); }

  const testing::TempDir dir_;
  const std::filesystem::path disk_ = dir_ / "database";
  const InstanceId instance_ = *InstanceId::parse("VS0000beef");
  const std::string whole_ = std::string(kSize, 'b');
  std::function<int(int)> sync_ = ::fdatasync;
  DiskReturns returns_{[this](int fd) { return sync_(fd); }};
};

TEST_F(Returns, NobodyTouchesWhatIsBecomingTheDisk) {
  ASSERT_TRUE(put("one", 0, whole_));
  int syncs = 0;
  sync_ = [&](int fd) {
    ++syncs;
    // Its node was interrupted and sends it again, or another time, while this one syncs.
    for (const auto* give : {"one", "two"}) {
      auto again = put(give, 0, "x");
      EXPECT_FALSE(again) << give;
      EXPECT_TRUE(again || again.error().code == ErrorCode::unavailable) << again.error().message;
      auto twice = finish(give);
      EXPECT_FALSE(twice) << give;
    }
    EXPECT_EQ(testing::slurp(back()), whole_);
    return ::fdatasync(fd);
  };
  auto done = finish("one");
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(*done);
  EXPECT_EQ(syncs, 1);
  EXPECT_EQ(testing::slurp(disk_), whole_);
  EXPECT_FALSE(std::filesystem::exists(back()));

  // What is sent from now on lies beside it again.
  ASSERT_TRUE(put("one", 0, "x"));
  EXPECT_EQ(testing::slurp(disk_), whole_);
}

TEST_F(Returns, OneThatCannotBeSyncedIsSentAgain) {
  ASSERT_TRUE(put("one", 0, whole_));
  sync_ = [](int) {
    errno = EIO;
    return -1;
  };
  EXPECT_FALSE(finish("one"));
  EXPECT_EQ(testing::slurp(disk_), std::string(kSize, 'a'));
  sync_ = ::fdatasync;
  auto end = put("one", kSize, {});
  ASSERT_TRUE(end);
  EXPECT_EQ(*end, 0u);
  ASSERT_TRUE(put("one", 0, whole_));
  auto done = finish("one");
  EXPECT_TRUE(done && *done);
  EXPECT_EQ(testing::slurp(disk_), whole_);
}

}  // namespace
}  // namespace educloud::cc
