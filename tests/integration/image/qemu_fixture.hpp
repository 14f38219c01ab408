#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include "common/image/convert.hpp"
#include "common/image/digest.hpp"
#include "common/image/inspector.hpp"
#include "common/sys/file.hpp"
#include "common/sys/process.hpp"
#include "support/temp_dir.hpp"

namespace educloud::image::testing {

/// Runs a real tool; the test fails with what it says if it does.
inline void tool(std::vector<std::string> argv) {
  sys::ProcessOptions options;
  options.argv = std::move(argv);
  const auto result = sys::run_checked(options);
  ASSERT_TRUE(result) << result.error().message;
}

/// Images made by the real qemu-img in a directory of the test's own.
class QemuTest : public ::testing::Test {
 protected:
  std::string at(std::string_view name) const { return (dir_ / name).string(); }

  /// A raw disk of `mib` MiB with data at the start, in the middle and at the end, else holes.
  std::string raw_disk(std::string_view name = "disk.raw", std::uint64_t mib = 8) const {
    const auto path = dir_.write(name, "boot");
    std::filesystem::resize_file(path, mib << 20);
    auto fd = sys::open_file(path, O_RDWR).value();
    EXPECT_TRUE(sys::pwrite_all(fd.get(), std::string(100'000, 'm'), (mib << 20) / 2));
    EXPECT_TRUE(sys::pwrite_all(fd.get(), "last", (mib << 20) - 4));
    return path.string();
  }

  /// The same disk in another format.
  std::string disk_as(std::string_view format, std::vector<std::string> options = {}) const {
    const auto path = at("disk." + std::string(format));
    std::vector<std::string> argv{"qemu-img", "convert", "-f", "raw", "-O", std::string(format)};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.insert(argv.end(), {raw_disk(), path});
    tool(argv);
    return path;
  }

  void expect_same_disk(const std::string& a, std::string_view a_format, const std::string& b,
                        std::string_view b_format) const {
    tool({"qemu-img", "compare", "-f", std::string(a_format), "-F", std::string(b_format), a, b});
  }

  ConvertRequest request(const std::string& input, Format format) const {
    ConvertRequest request;
    request.input = input;
    request.input_format = format;
    request.output = dir_ / "out.raw";
    request.workspace = dir_ / "work";
    request.user = "nobody";
    request.isolation = Isolation::best_effort;
    request.timeout = std::chrono::minutes(2);
    return request;
  }

  /// Neither output nor workspace is there.
  void expect_nothing_left() const {
    EXPECT_FALSE(std::filesystem::exists(dir_ / "out.raw"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "work"));
  }

  const educloud::testing::TempDir dir_;
};

}  // namespace educloud::image::testing
