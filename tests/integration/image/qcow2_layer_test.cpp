// LayeredDisk and Qcow2Delta against the real qemu-img and qemu-io.
#include "common/image/qcow2_layer.hpp"

#include <gmock/gmock.h>

#include <random>
#include <thread>

#include "qemu_fixture.hpp"

namespace educloud::image {
namespace {

using testing::tool;

constexpr std::uint64_t kCluster = 64 * 1024;

class LayeredReal : public testing::QemuTest {
 protected:
  /// `name` over `base` as we order it, or over nothing.
  std::string overlay(std::string_view name, const std::string& base, std::string_view base_format,
                      const std::string& size = {}, const std::string& options = "cluster_size=64k") const {
    std::vector<std::string> argv{"qemu-img", "create", "-q", "-f", "qcow2", "-o", options};
    if (!base.empty()) argv.insert(argv.end(), {"-b", base, "-F", std::string(base_format)});
    argv.push_back(at(name));
    if (!size.empty()) argv.push_back(size);
    tool(std::move(argv));
    return at(name);
  }

  /// Writes, writes of zeros and discards at random places, as a guest would.
  static void scribble(const std::string& file, std::uint64_t disk_bytes, unsigned seed, int count) {
    std::mt19937_64 random(seed);
    std::vector<std::string> argv{"qemu-io", "-f", "qcow2", "-d", "unmap"};
    for (int i = 0; i < count; ++i) {
      const auto place = random() % disk_bytes / 512 * 512;
      auto length = (random() % 3 == 0 ? random() % (6 * kCluster) : random() % 9000) / 512 * 512 + 512;
      length = std::min(length, (disk_bytes - place) / 512 * 512);
      if (length == 0) continue;
      const auto where = std::to_string(place) + " " + std::to_string(length);
      const auto aligned = std::to_string(place / kCluster * kCluster) + " " +
                           std::to_string(std::min((length / kCluster + 1) * kCluster,
                                                   (disk_bytes - place / kCluster * kCluster) / 512 * 512));
      constexpr std::array kKinds{"write -P ", "write -P ", "write -z ", "write -z -u ", "discard "};
      const auto kind = random() % kKinds.size();
      std::string command = kKinds[kind];
      if (kind < 2) command += std::to_string(1 + random() % 254) + " ";
      argv.insert(argv.end(), {"-c", command + (kind < 2 || random() % 2 == 0 ? where : aligned)});
    }
    argv.push_back(file);
    tool(std::move(argv));
  }

  /// What QEMU reads.
  std::string contents(const std::string& file) const {
    const auto out = at("contents.raw");
    tool({"qemu-img", "convert", "-O", "raw", file, out});
    auto text = sys::read_file(out, 1 << 30).value();
    std::filesystem::remove(out);
    return text;
  }

  /// Reads in odd pieces.
  static std::string read_all(const LayeredDisk& disk, std::size_t piece) {
    std::string text(disk.disk_bytes(), '\x77');
    for (std::size_t at = 0; at < text.size(); at += piece) {
      const auto part = std::span<char>(text).subspan(at, std::min(piece, text.size() - at));
      const auto ok = disk.read(at, part);
      EXPECT_TRUE(ok) << ok.error().message;
      if (!ok) break;
    }
    return text;
  }

  static void expect_reads(const LayeredDisk& disk, const std::string& expected) {
    ASSERT_EQ(disk.disk_bytes(), expected.size());
    for (const std::size_t piece : {std::size_t{kCluster}, std::size_t{100'003}, std::size_t{4 << 20}}) {
      EXPECT_TRUE(read_all(disk, piece) == expected) << "pieces of " << piece;
    }
    for (std::uint64_t at = 0; at < expected.size(); at += kCluster) {
      const auto part = std::string_view(expected).substr(at, kCluster);
      const bool is_zero = part.find_first_not_of('\0') == std::string_view::npos;
      EXPECT_TRUE(is_zero || !disk.is_hole(at, kCluster)) << at;
    }
  }

  /// The disk under the top `layers`, with what runs() says laid over it, is the disk.
  static void expect_runs_rebuild(const LayeredDisk& disk, const std::vector<LayeredDisk::Layer>& files,
                                  std::size_t layers, std::string below, const std::string& expected) {
    below.resize((expected.size() + kCluster - 1) / kCluster * kCluster);
    const auto runs = disk.runs(layers);
    ASSERT_TRUE(runs) << runs.error().message;
    std::uint64_t last_end = 0;
    for (const auto& run : *runs) {
      EXPECT_GE(run.first, last_end);
      EXPECT_LT(run.layer, layers);
      EXPECT_GT(run.count, 0U);
      last_end = run.first + run.count;
      ASSERT_LE(last_end * kCluster, below.size());
      std::string data(run.count * kCluster, '\0');
      if (run.state == ClusterState::data) {
        const auto fd = sys::open_file(files[run.layer].file, O_RDONLY).value();
        EXPECT_GE(::pread(fd.get(), data.data(), data.size(), static_cast<off_t>(run.offset)), 0);
      }
      below.replace(run.first * kCluster, data.size(), data);
    }
    below.resize(expected.size());
    EXPECT_TRUE(below == expected) << "top " << layers << " layers";
  }

  static LayeredDisk open(std::vector<LayeredDisk::Layer> layers) {
    auto disk = LayeredDisk::open(std::move(layers));
    if (!disk) throw std::runtime_error(disk.error().message);
    return std::move(*disk);
  }
};

TEST_F(LayeredReal, RawAlone) {
  const auto raw = raw_disk("disk.raw", 8);
  std::filesystem::resize_file(raw, (8 << 20) + 1000);
  const auto disk = open({{raw, "raw"}});
  const auto expected = sys::read_file(raw, 1 << 30).value();
  expect_reads(disk, expected);
  expect_runs_rebuild(disk, {{raw, "raw"}}, 1, "", expected);
  EXPECT_TRUE(disk.is_hole(1 << 20, 1 << 20));
  EXPECT_FALSE(disk.is_hole(0, 8 << 20));
  std::string beyond(1001, '\0');
  EXPECT_EQ(disk.read(8 << 20, beyond).error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(disk.read((8 << 20) + 1000, {}));
}

TEST_F(LayeredReal, RandomWritesThroughThreeLayers) {
  for (unsigned seed = 1; seed <= 4; ++seed) {
    const auto name = [&](const char* what) { return what + std::to_string(seed); };
    const std::uint64_t size = (8 << 20) + (seed % 2 == 0 ? 0 : 512 * seed);
    const auto raw = raw_disk(name("base.raw"), 8);
    std::filesystem::resize_file(raw, size);
    const std::string compat = seed == 3 ? "cluster_size=64k,compat=0.10" : "cluster_size=64k";
    const auto middle = overlay(name("middle"), raw, "raw", {}, compat);
    scribble(middle, size, seed, 40);
    const auto top = overlay(name("top"), middle, "qcow2", {}, compat);
    scribble(top, size, seed + 100, 40);
    const std::vector<LayeredDisk::Layer> files{{top, "qcow2"}, {middle, "qcow2"}, {raw, "raw"}};
    const auto disk = open(files);
    const auto expected = contents(top);
    expect_reads(disk, expected);
    expect_runs_rebuild(disk, files, 1, contents(middle), expected);
    expect_runs_rebuild(disk, files, 2, sys::read_file(raw, 1 << 30).value(), expected);
    expect_runs_rebuild(disk, files, 3, "", expected);
  }
}

TEST_F(LayeredReal, LayersOfOtherSizes) {
  // The middle one is shorter than what is below it and ends inside a cluster; the top one is longer.
  const auto raw = at("base.raw");
  ASSERT_TRUE(sys::write_file_atomically(raw, std::string(3 << 20, 'b')));
  const auto middle = overlay("middle", raw, "raw", std::to_string((1 << 20) + 1024));
  scribble(middle, (1 << 20) + 1024, 7, 3);
  const auto top = overlay("top", middle, "qcow2", "4M");
  tool({"qemu-io", "-f", "qcow2", "-c", "write -P 9 2500000 1000", top});
  const auto disk = open({{top, "qcow2"}, {middle, "qcow2"}, {raw, "raw"}});
  const auto expected = contents(top);
  EXPECT_EQ(expected[(1 << 20) + 1024], '\0');
  expect_reads(disk, expected);
  const auto runs = disk.runs(2).value();
  EXPECT_EQ(runs.back().state, ClusterState::zero) << "beyond the middle layer's end";
  EXPECT_EQ(runs.back().first + runs.back().count, 64U);
  const auto longer = overlay("longer", raw, "raw", "8M");
  expect_reads(open({{longer, "qcow2"}, {raw, "raw"}}), contents(longer));
}

TEST_F(LayeredReal, ManyTablesStayBounded) {
  const auto top = overlay("top", "", "", "16T");
  std::vector<std::string> argv{"qemu-io", "-f", "qcow2"};
  for (int i = 0; i < 40; ++i) {
    argv.insert(argv.end(),
                {"-c", "write -P " + std::to_string(i + 1) + " " + std::to_string(i * 400) + "G 1k"});
  }
  argv.push_back(top);
  tool(argv);
  const auto disk = open({{top, "qcow2"}});
  EXPECT_EQ(disk.disk_bytes(), std::uint64_t{16} << 40);
  // More tables than are kept, from several threads at once.
  const auto read_round = [&disk](std::uint64_t step) {
    for (std::uint64_t n = 0; n < 80; ++n) {
      const auto i = n * step % 40;
      std::string text(1025, 'x');
      EXPECT_TRUE(disk.read((i * 400) << 30, text));
      EXPECT_EQ(text, std::string(1024, static_cast<char>(i + 1)) + '\0');
    }
  };
  std::vector<std::jthread> threads;
  for (const std::uint64_t step : {1, 3, 7, 11}) threads.emplace_back(read_round, step);
  threads.clear();
  EXPECT_EQ(disk.runs(1).value().size(), 40U);
  EXPECT_TRUE(disk.is_hole(std::uint64_t{1} << 30, std::uint64_t{399} << 30));
}

TEST_F(LayeredReal, WhatWeDoNotReadIsRefused) {
  const auto refused = [&](const std::string& file, std::string_view why) {
    auto disk = LayeredDisk::open({{file, "qcow2"}});
    const auto result = disk ? disk->runs(1).map([](auto&&) {}) : Result<>(fail(disk.error()));
    ASSERT_FALSE(result) << file;
    EXPECT_THAT(result.error().message, ::testing::HasSubstr(std::string(why)));
    EXPECT_THAT(result.error().message, ::testing::HasSubstr(file));
    if (disk) {
      std::string text(kCluster, '\0');
      EXPECT_FALSE(disk->read(0, text));
      EXPECT_FALSE(disk->is_hole(0, kCluster));
    }
  };
  refused(disk_as("qcow2", {"-c"}), "compressed");
  refused(overlay("small", "", "", "1M", "cluster_size=4k"), "cluster_bits 12");
  refused(overlay("subclusters", "", "", "1M", "extended_l2=on,cluster_size=64k"), "extended L2");
  refused(overlay("external", "", "", "1M", "cluster_size=64k,data_file=" + at("data")), "another file");
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abcdefgh", "-o",
        "cluster_size=64k,encrypt.format=aes,encrypt.key-secret=s", at("secret"), "1M"});
  refused(at("secret"), "encrypted");
}

TEST_F(LayeredReal, SnapshotsAndOpenErrors) {
  const auto snapped = overlay("snapped", "", "", "1M");
  tool({"qemu-img", "snapshot", "-c", "one", snapped});
  EXPECT_THAT(LayeredDisk::open({{snapped, "qcow2"}}).error().message,
              ::testing::HasSubstr("internal snapshots"));
  const auto raw = raw_disk();
  EXPECT_EQ(LayeredDisk::open({}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(LayeredDisk::open({{at("none"), "raw"}}).error().code, ErrorCode::not_found);
  EXPECT_EQ(LayeredDisk::open({{raw, "qcow2"}}).error().code, ErrorCode::corrupt);
  EXPECT_EQ(LayeredDisk::open({{raw, "vdi"}}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(LayeredDisk::open({{raw, "raw"}, {raw, "raw"}}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(LayeredDisk::open({{dir_.path(), "raw"}}).error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace educloud::image
