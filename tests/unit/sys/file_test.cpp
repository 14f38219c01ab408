#include "common/sys/file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/temp_dir.hpp"

namespace educloud::sys {
namespace {

namespace fs = std::filesystem;
using educloud::testing::slurp;
using educloud::testing::TempDir;
using ::testing::HasSubstr;

unsigned mode_of(const fs::path& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
}

std::size_t entries_in(const fs::path& directory) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

TEST(File, FdClosesAndMoves) {
  int number = -1;
  {
    Fd first = open_file("/dev/null", O_RDONLY).value();
    number = first.get();
    EXPECT_NE(::fcntl(number, F_GETFD) & FD_CLOEXEC, 0);
    Fd second;
    second = std::move(first);
    EXPECT_FALSE(first.is_open());  // NOLINT: that is what is tested
    EXPECT_EQ(second.get(), number);
  }
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

TEST(File, ErrorsNameThePath) {
  const auto result = read_file("/no/such/file");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::not_found);
  EXPECT_THAT(result.error().message, HasSubstr("/no/such/file"));
}

TEST(File, ReadHasALimit) {
  const TempDir dir;
  const auto file = dir.write("f", "12345");
  EXPECT_EQ(read_file(file, 5).value(), "12345");
  EXPECT_EQ(read_file(file, 4).error().code, ErrorCode::too_large);
}

TEST(File, SecretsMustBePrivate) {
  const TempDir dir;
  const auto file = dir.write("secret", "s3cret\n");
  for (const unsigned mode : {0644U, 0640U, 0604U, 0620U, 0601U}) {
    fs::permissions(file, static_cast<fs::perms>(mode));
    const auto result = read_secret_file(file);
    ASSERT_FALSE(result) << std::oct << mode;
    EXPECT_EQ(result.error().code, ErrorCode::permission_denied);
    EXPECT_THAT(result.error().message, HasSubstr("chmod 600"));
    EXPECT_THAT(result.error().message, Not(HasSubstr("s3cret")));
  }
  fs::permissions(file, static_cast<fs::perms>(0600));
  EXPECT_EQ(read_secret_file(file).value(), "s3cret");
  fs::permissions(file, static_cast<fs::perms>(0400));
  EXPECT_EQ(read_secret_file(file).value(), "s3cret");
}

TEST(File, AnEmptySecretIsRefused) {
  const TempDir dir;
  const auto file = dir.write("secret", "\n");
  fs::permissions(file, static_cast<fs::perms>(0600));
  EXPECT_EQ(read_secret_file(file).error().code, ErrorCode::invalid_argument);
}

TEST(File, AtomicWriteReplacesAndLeavesNothingBeside) {
  const TempDir dir;
  const auto file = dir.write("f", "old");
  ASSERT_TRUE(write_file_atomically(file, "new", 0600));
  EXPECT_EQ(slurp(file), "new");
  EXPECT_EQ(mode_of(file), 0600U);
  EXPECT_EQ(entries_in(dir.path()), 1U);
}

TEST(File, AtomicWriteKeepsItsModeUnderAnyUmask) {
  const TempDir dir;
  const auto before = ::umask(0);
  ASSERT_TRUE(write_file_atomically(dir / "secret", "x", 0600));
  ::umask(077);
  ASSERT_TRUE(write_file_atomically(dir / "public", "x", 0644));
  ::umask(before);
  EXPECT_EQ(mode_of(dir / "secret"), 0600U);
  EXPECT_EQ(mode_of(dir / "public"), 0644U);
}

TEST(File, AFailedAtomicWriteKeepsTheOldAndLeavesNothing) {
  const TempDir dir;
  fs::create_directory(dir / "target");
  dir.write("target/inside", "x");  // a directory cannot be renamed over
  EXPECT_FALSE(write_file_atomically(dir / "target", "new"));
  EXPECT_EQ(entries_in(dir.path()), 1U);
  EXPECT_EQ(write_file_atomically(dir / "missing" / "f", "x").error().code, ErrorCode::not_found);
}

TEST(File, OpenBeneathOpensWhatIsBelow) {
  const TempDir dir;
  dir.write("a/b/file", "inside");
  auto fd = open_beneath(dir.path(), "a/b/file", O_RDONLY);
  ASSERT_TRUE(fd) << fd.error().message;
  std::string text(6, ' ');
  EXPECT_EQ(::read(fd->get(), text.data(), 6), 6);
  EXPECT_EQ(text, "inside");
  EXPECT_TRUE(open_beneath(dir.path(), "a/new", O_WRONLY | O_CREAT | O_EXCL, 0640));
  EXPECT_EQ(mode_of(dir / "a" / "new") & 0600, 0600U);
  EXPECT_EQ(open_beneath(dir.path(), "a/none", O_RDONLY).error().code, ErrorCode::not_found);
}

TEST(File, OpenBeneathRefusesEveryWayOut) {
  const TempDir dir;
  dir.write("outside", "secret");
  dir.write("root/inside", "x");
  fs::create_directory(dir / "root" / "sub");
  fs::create_symlink("../outside", dir / "root" / "link");
  fs::create_symlink("inside", dir / "root" / "harmless");
  fs::create_directory_symlink("..", dir / "root" / "up");
  const auto root = dir / "root";
  const std::string absolute = (dir / "outside").string();
  for (const std::string& name :
       {std::string("../outside"), std::string("sub/../../outside"), std::string("link"),
        std::string("harmless"), std::string("up/outside"), absolute, std::string(""), std::string("sub/.."),
        std::string("inside\0x", 8)}) {
    const auto result = open_beneath(root, name, O_RDONLY);
    ASSERT_FALSE(result) << name;
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << name << ": " << result.error().message;
  }
}

TEST(File, MakeDirectories) {
  const TempDir dir;
  EXPECT_TRUE(make_directories(dir / "a" / "b" / "c"));
  EXPECT_TRUE(make_directories(dir / "a" / "b" / "c"));
  EXPECT_TRUE(make_directories((dir / "a" / "d").string() + "/"));
  EXPECT_TRUE(fs::is_directory(dir / "a" / "d"));
  dir.write("file", "x");
  EXPECT_EQ(make_directories(dir / "file").error().code, ErrorCode::conflict);
  EXPECT_FALSE(make_directories(dir / "file" / "below"));
}

TEST(File, WriteAllAndPwriteAll) {
  const TempDir dir;
  auto fd = open_file(dir / "f", O_RDWR | O_CREAT).value();
  ASSERT_TRUE(write_all(fd.get(), "hello world"));
  ASSERT_TRUE(pwrite_all(fd.get(), "W", 6));
  EXPECT_EQ(slurp(dir / "f"), "hello World");
  auto read_only = open_file(dir / "f", O_RDONLY).value();
  EXPECT_FALSE(write_all(read_only.get(), "x"));
  EXPECT_EQ(write_all(open_file("/dev/full", O_WRONLY)->get(), "x").error().code, ErrorCode::exhausted);
}

TEST(File, DiskSpace) {
  const auto space = disk_space("/tmp");
  ASSERT_TRUE(space);
  EXPECT_GT(space->total_bytes, 0U);
  EXPECT_LE(space->free_bytes, space->total_bytes);
  EXPECT_EQ(disk_space("/no/such").error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace educloud::sys
