// Files of Qcow2Delta as the real qemu-img sees them.
#include <gmock/gmock.h>

#include <random>

#include "common/image/qcow2_layer.hpp"
#include "qemu_fixture.hpp"

namespace educloud::image {
namespace {

using ::testing::HasSubstr;
using testing::tool;

constexpr std::uint64_t kCluster = 64 * 1024;

class DeltaReal : public testing::QemuTest {
 protected:
  static std::string output_of(std::vector<std::string> argv) {
    sys::ProcessOptions options;
    options.argv = std::move(argv);
    options.output_limit = 64 << 20;
    const auto result = sys::run_checked(options);
    EXPECT_TRUE(result) << result.error().message;
    return result.value_or("");
  }

  static void expect_sound(const std::string& file) {
    const auto report = nlohmann::json::parse(output_of({"qemu-img", "check", "--output=json", file}));
    EXPECT_EQ(report.value("check-errors", -1), 0) << report.dump();
    EXPECT_FALSE(report.contains("corruptions") || report.contains("leaks")) << report.dump();
  }

  static std::string cluster_text(std::uint64_t number) {
    return std::string(kCluster, static_cast<char>('A' + number % 26));
  }

  /// Makes the delta and fills it, last cluster first; returns the disk that must come out.
  std::string make(const std::string& file, const Qcow2Delta::Spec& spec, std::string below) {
    auto delta = Qcow2Delta::create(file, spec);
    EXPECT_TRUE(delta) << delta.error().message;
    if (!delta) return {};
    EXPECT_EQ(delta->data_start(), Qcow2Delta::data_start_of(spec));
    const auto size = std::filesystem::file_size(file);
    EXPECT_EQ(size, delta->data_start() + spec.data.size() * kCluster) << "final length";
    auto fd = sys::open_file(file, O_RDWR).value();
    const auto padded = (spec.disk_bytes + kCluster - 1) / kCluster * kCluster;
    below.resize(spec.disk_bytes);
    below.resize(padded);
    for (std::size_t i = spec.data.size(); i-- > 0;) {
      const auto start = spec.data[i] * kCluster;
      const auto text = cluster_text(spec.data[i]).substr(0, spec.disk_bytes - start);
      EXPECT_TRUE(sys::pwrite_all(fd.get(), text, delta->data_start() + i * kCluster));
      below.replace(start, text.size(), text);
    }
    EXPECT_EQ(std::filesystem::file_size(file), size);
    for (const auto zero : spec.zeros) below.replace(zero * kCluster, kCluster, std::string(kCluster, '\0'));
    below.resize((spec.disk_bytes + 511) / 512 * 512);
    return below;
  }

  void expect_disk(const std::string& file, const std::string& expected) {
    const auto path = dir_.write("expected.raw", expected);
    tool({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", file, path.string()});
  }
};

TEST_F(DeltaReal, RandomDeltasOnRaw) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 6; ++round) {
    const std::uint64_t bytes = (random() % 200) * kCluster + 1 + random() % kCluster;
    const auto base = dir_.write("base.raw", std::string(bytes, 'b')).string();
    Qcow2Delta::Spec spec;
    spec.disk_bytes = bytes;
    spec.backing_file = base;
    spec.backing_format = "raw";
    for (std::uint64_t i = 0; i * kCluster < bytes; ++i) {
      const auto dice = random() % 4;
      if (dice == 0) spec.data.push_back(i);
      if (dice == 1) spec.zeros.push_back(i);
    }
    const auto file = at("delta" + std::to_string(round));
    const auto expected = make(file, spec, std::string(bytes, 'b'));
    expect_sound(file);
    expect_disk(file, expected);
    auto fd = sys::open_file(file, O_RDONLY).value();
    const auto header = inspect_overlay(fd.get(), base, Format::raw);
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(header->virtual_size_bytes, expected.size());
    const auto disk = LayeredDisk::open({{file, "qcow2"}, {base, "raw"}});
    ASSERT_TRUE(disk) << disk.error().message;
    std::string text(expected.size(), 'x');
    ASSERT_TRUE(disk->read(0, text));
    EXPECT_TRUE(text == expected);
  }
}

TEST_F(DeltaReal, MapSaysWhatTheSpecSays) {
  const auto base = dir_.write("base.raw", std::string(32 * kCluster, 'b')).string();
  Qcow2Delta::Spec spec{32 * kCluster, {3, 4, 9}, {10, 31}, base, "raw"};
  make(at("delta"), spec, std::string(32 * kCluster, 'b'));
  const auto map = nlohmann::json::parse(output_of({"qemu-img", "map", "--output=json", at("delta")}));
  std::vector<std::string> seen;
  for (const auto& one : map) {
    if (one["depth"] != 0) continue;
    seen.push_back(std::to_string(one["start"].get<std::uint64_t>() / kCluster) + "+" +
                   std::to_string(one["length"].get<std::uint64_t>() / kCluster) +
                   (one["zero"].get<bool>() ? " zero" : " data"));
  }
  EXPECT_THAT(seen, ::testing::ElementsAre("3+2 data", "9+1 data", "10+1 zero", "31+1 zero"));
  const auto runs = LayeredDisk::open({{at("delta"), "qcow2"}, {base, "raw"}}).value().runs(1).value();
  const auto start = Qcow2Delta::data_start_of(spec);
  EXPECT_THAT(runs, ::testing::ElementsAre(ClusterRun{3, 2, ClusterState::data, start, 0},
                                           ClusterRun{9, 1, ClusterState::data, start + 2 * kCluster, 0},
                                           ClusterRun{10, 1, ClusterState::zero, 0, 0},
                                           ClusterRun{31, 1, ClusterState::zero, 0, 0}));
}

TEST_F(DeltaReal, DeltaOnDeltaAndOverlayOnBoth) {
  const std::uint64_t size = 40 * kCluster + 777;
  const auto base = dir_.write("v1", std::string(size, 'b')).string();
  Qcow2Delta::Spec second{size, {1, 2, 40}, {5}, base, "raw"};
  const auto v2 = make(at("v2"), second, std::string(size, 'b'));
  Qcow2Delta::Spec third{size, {2, 5}, {1, 40}, at("v2"), "qcow2"};
  const auto v3 = make(at("v3"), third, v2);
  expect_sound(at("v2"));
  expect_sound(at("v3"));
  expect_disk(at("v3"), v3);
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", at("v3"), "-F", "qcow2", at("vm")});
  tool({"qemu-io", "-f", "qcow2", "-c", "write -P 7 100000 70000", at("vm")});
  auto expected = v3;
  expected.replace(100'000, 70'000, std::string(70'000, '\x07'));
  expect_disk(at("vm"), expected);
  const auto disk =
      LayeredDisk::open({{at("vm"), "qcow2"}, {at("v3"), "qcow2"}, {at("v2"), "qcow2"}, {base, "raw"}});
  ASSERT_TRUE(disk) << disk.error().message;
  std::string text(disk->disk_bytes(), 'x');
  ASSERT_TRUE(disk->read(0, text));
  EXPECT_TRUE(text == expected);
}

TEST_F(DeltaReal, LargeOnesHaveSeveralRefcountBlocks) {
  // 80,000 clusters of data: more than two blocks of 32,768 refcounts.
  Qcow2Delta::Spec spec;
  spec.disk_bytes = std::uint64_t{16} << 40;
  for (std::uint64_t i = 0; i < 80'000; ++i) spec.data.push_back(i * 3 + (i >= 40'000 ? 200'000'000 : 0));
  spec.zeros = {1, (std::uint64_t{16} << 24) - 1};
  auto delta = Qcow2Delta::create(at("large"), spec);
  ASSERT_TRUE(delta) << delta.error().message;
  expect_sound(at("large"));
  EXPECT_TRUE(inspect_file(at("large"), {std::uint64_t{1} << 44, std::uint64_t{1} << 44}));
  const auto runs = LayeredDisk::open({{at("large"), "qcow2"}}).value().runs(1).value();
  EXPECT_EQ(runs.size(), 80'002U);
  EXPECT_EQ(runs.back().first, spec.zeros.back());
  // Sparse: only the tables take room.
  const auto usage = output_of({"du", "-k", at("large")});
  EXPECT_LT(std::stoul(usage), 4096U + 64 * (delta->data_start() / kCluster)) << usage;
}

TEST_F(DeltaReal, SizesAroundARefcountBlock) {
  for (const std::uint64_t count : {32'760, 32'762, 32'763, 32'764, 32'765, 32'768}) {
    Qcow2Delta::Spec spec;
    spec.disk_bytes = 40'000 * kCluster;
    for (std::uint64_t i = 0; i < count; ++i) spec.data.push_back(i);
    const auto file = at("block" + std::to_string(count));
    ASSERT_TRUE(Qcow2Delta::create(file, spec));
    expect_sound(file);
  }
}

TEST_F(DeltaReal, EmptyDeltaAndSmallestDisk) {
  const auto base = dir_.write("base.raw", "x").string();
  EXPECT_EQ(make(at("nothing"), {1, {}, {}, base, "raw"}, "x").size(), 512U);
  expect_sound(at("nothing"));
  expect_disk(at("nothing"), "x" + std::string(511, '\0'));
  make(at("one"), {1, {0}, {}, base, "raw"}, "x");
  expect_sound(at("one"));
  expect_disk(at("one"), "A" + std::string(511, '\0'));
}

TEST_F(DeltaReal, BadSpecsAreRefused) {
  const auto refused = [&](const Qcow2Delta::Spec& spec, std::string_view why) {
    const auto result = Qcow2Delta::create(at("bad"), spec);
    ASSERT_FALSE(result) << why;
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(result.error().message, HasSubstr(std::string(why)));
    EXPECT_FALSE(std::filesystem::exists(at("bad")));
  };
  refused({0, {}, {}, "b", "raw"}, "a disk of 0 bytes");
  refused({(std::uint64_t{16} << 40) + 1, {}, {}, "b", "raw"}, "16 TiB");
  refused({kCluster, {1}, {}, "b", "raw"}, "beyond the disk");
  refused({kCluster, {}, {1}, "b", "raw"}, "beyond the disk");
  refused({9 * kCluster, {1, 1}, {}, "b", "raw"}, "does not rise");
  refused({9 * kCluster, {}, {2, 1}, "b", "raw"}, "does not rise");
  refused({9 * kCluster, {1, 5}, {2, 5}, "b", "raw"}, "both data and zeros");
  refused({kCluster, {}, {}, "b", "vmdk"}, "'vmdk' is not raw or qcow2");
  refused({kCluster, {}, {}, std::string(1024, 'b'), "raw"}, "1023");
  ASSERT_TRUE(Qcow2Delta::create(at("twice"), {kCluster, {}, {}, "b", "raw"}));
  EXPECT_EQ(Qcow2Delta::create(at("twice"), {kCluster, {}, {}, "b", "raw"}).error().code,
            ErrorCode::conflict);
  EXPECT_EQ(Qcow2Delta::create(at("no/such"), {kCluster, {}, {}, "b", "raw"}).error().code,
            ErrorCode::not_found);
}

}  // namespace
}  // namespace educloud::image
