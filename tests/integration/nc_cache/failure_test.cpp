#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "integration/nc_cache/node.hpp"
#include "support/fault.hpp"

namespace educloud::nc {
namespace {

class Failure : public NodeCacheTest {};

TEST_F(Failure, WrongDigestsAndLyingManifestsAreRefused) {
  auto v1 = disk("v1", 16 * kMiB);
  v1.fill(1, 80);
  const auto digest = cc_.add(kImage, 1, v1);
  Node node(cc_, "nc1", prefix("nc1"));
  auto wrong = digest;
  wrong.bytes[3] ^= 1;
  EXPECT_EQ(node.fill(1, wrong).error().code, ErrorCode::corrupt);
  EXPECT_EQ(node.fill(2, digest).error().code, ErrorCode::not_found);
  auto request = node.request(1, digest);
  request.grant = cc_.grant("nc1", kImage, 2);
  EXPECT_EQ(node.cache().fill(request, {}, {}).error().code, ErrorCode::permission_denied);

  chunk::Manifest lying = *chunk::Manifest::decode(*cc_.manifest({kImage, 1, "", {}}, {}));
  lying.data_bytes -= kChunk;
  const auto lie = cc_.add_text(kImage, 3, lying.encode());
  EXPECT_EQ(node.fill(3, lie).error().code, ErrorCode::corrupt);
  EXPECT_FALSE(node.store().find(kImage, 3));
  EXPECT_TRUE(node.fill(1, digest));
  EXPECT_EQ(node.fill(1, wrong).error().code, ErrorCode::conflict);
}

TEST_F(Failure, AChunkThatIsWrongAtTheCcEndsTheFill) {
  auto v1 = disk("v1", 16 * kMiB);
  v1.fill(1, 80);
  const auto digest = cc_.add(kImage, 1, v1);
  chunk::FrameEncoder encoder;
  auto text = std::make_shared<std::string>();
  auto header = *encoder.append(chunk_content(99, kChunk), *text);
  auto map = cc_.ids();
  const auto id = [&] {
    const sys::Fd fd(::open(v1.path().c_str(), O_RDONLY));
    std::string buffer(kChunk, '\0');
    for (std::uint64_t at = 0;; ++at) {
      if (::pread(fd.get(), buffer.data(), kChunk, static_cast<off_t>(at * kChunk)) <= 0) std::abort();
      if (buffer.find_first_not_of('\0') != std::string::npos) return chunk::ChunkId::of(buffer);
    }
  }();
  header.id = id;
  chunk::encode_header(header,
                       std::span<char, chunk::kFrameHeaderBytes>(text->data(), chunk::kFrameHeaderBytes));
  cc_.lie(id, text);
  Node node(cc_, "nc1", prefix("nc1"));
  EXPECT_EQ(node.fill(1, digest).error().code, ErrorCode::corrupt);
  EXPECT_FALSE(node.store().find(kImage, 1));
}

TEST_F(Failure, GoesOnWhenTheCcComesBack) {
  auto v1 = disk("v1", 128 * kMiB);
  v1.fill(1, 90);
  const auto digest = cc_.add(kImage, 1, v1);
  cc_.bytes_per_s = 60 * kMiB;
  Node node(cc_, "nc1", prefix("nc1"));
  std::jthread filling([&] {
    const auto filled = node.fill(1, digest);
    EXPECT_TRUE(filled) << filled.error().message;
  });
  while (cc_.sent_bytes < 20 * kMiB) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  cc_.stop();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // it is away for a while
  cc_.start();
  filling.join();
  EXPECT_EQ(first_difference(node, 1, v1), std::nullopt);
  EXPECT_LT(cc_.sent_bytes, cc_.data_bytes(kImage, 1) + 32 * kMiB);
}

TEST_F(Failure, GivesUpWhenNothingMoves) {
  auto v1 = disk("v1", 8 * kMiB);
  v1.fill(1, 90);
  const auto digest = cc_.add(kImage, 1, v1);
  CacheOptions options;
  options.stall_timeout = std::chrono::seconds(1);
  Node node(cc_, "nc1", prefix("nc1"), options);
  cc_.stop();
  const auto filled = node.fill(1, digest);
  ASSERT_FALSE(filled);
  EXPECT_EQ(filled.error().code, ErrorCode::unavailable);
}

TEST_F(Failure, AStoppedFillGoesOnFromItsMarks) {
  auto v1 = disk("v1", 128 * kMiB);
  v1.fill(1, 100);
  const auto digest = cc_.add(kImage, 1, v1);
  cc_.bytes_per_s = 60 * kMiB;
  Node node(cc_, "nc1", prefix("nc1"));
  std::stop_source stop;
  std::jthread filling([&] {
    const auto filled = node.cache().fill(node.request(1, digest), {}, stop.get_token());
    ASSERT_FALSE(filled);
    EXPECT_EQ(filled.error().code, ErrorCode::cancelled);
  });
  while (cc_.sent_bytes < 64 * kMiB) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  stop.request_stop();
  filling.join();
  node.stop();
  const auto before = cc_.sent_bytes.load();
  cc_.bytes_per_s = 0;
  node.start();
  ASSERT_TRUE(node.fill(1, digest));
  EXPECT_EQ(first_difference(node, 1, v1), std::nullopt);
  // Nothing was killed: all that had come was marked.
  EXPECT_LT(cc_.sent_bytes - before, cc_.data_bytes(kImage, 1) - before + 24 * kMiB);
}

TEST_F(Failure, AFullDiskIsReportedAndLeavesNothing) {
  const auto mount_point = prefix("small");
  std::filesystem::create_directories(mount_point);
  if (::mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=24m") != 0) {
    std::printf("no mount allowed here; the rest is not tried\n");
    return;
  }
  struct Unmount {
    std::filesystem::path path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } unmount{mount_point};
  auto v1 = disk("v1", 64 * kMiB);
  v1.fill(1, 100);
  const auto digest = cc_.add(kImage, 1, v1);
  {
    Node node(cc_, "nc1", mount_point);
    const auto filled = node.fill(1, digest);
    ASSERT_FALSE(filled);
    EXPECT_EQ(filled.error().code, ErrorCode::exhausted);
    EXPECT_TRUE(node.staging_is_empty());
    EXPECT_FALSE(node.store().find(kImage, 1));
    // Full only once it has begun: somebody else takes the room.
    auto v2 = disk("v2", 4 * kMiB);
    v2.fill(2, 100);
    const auto second = cc_.add(kImage, 2, v2);
    cc_.bytes_per_s = 2 * kMiB;
    std::jthread filling([&] {
      const auto late = node.fill(2, second);
      ASSERT_FALSE(late);
      EXPECT_EQ(late.error().code, ErrorCode::exhausted) << late.error().message;
    });
    const auto before = cc_.sent_bytes.load();
    while (cc_.sent_bytes < before + kMiB) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const sys::Fd hog(::open((mount_point / "hog").c_str(), O_CREAT | O_RDWR, 0600));
    const std::string block(64 * 1024, 'x');
    while (::write(hog.get(), block.data(), block.size()) > 0) {
    }
    filling.join();
    EXPECT_TRUE(node.staging_is_empty());
  }
}

/// What the next tests run in a process of its own, to kill it; nothing if nobody asked.
TEST(FillProcess, FillsIfAsked) {
  const char* file = std::getenv("NC_CACHE_CHILD");
  if (file == nullptr) return;
  const auto text = educloud::testing::slurp(file);
  const auto job = nlohmann::json::parse(text);
  SystemClock clock;
  image::VersionStore::Options store_options;
  store_options.is_cache = true;
  auto store = image::VersionStore::open(job["prefix"].get<std::string>(), store_options);
  ASSERT_TRUE(store) << store.error().message;
  CacheOptions options;
  options.cc = *http::Url::parse(job["cc"].get<std::string>());
  options.host = "nc1";
  NodeCache cache(options, **store, clock);
  FillRequest request;
  request.imgid = kImage;
  request.version = job["version"];
  request.digest = *chunk::ChunkId::parse(job["digest"].get<std::string>());
  request.grant = job["grant"];
  const auto filled = cache.fill(request, {}, {});
  ASSERT_TRUE(filled) << filled.error().message;
}

pid_t spawn_child(const std::filesystem::path& job) {
  const std::string variable = "NC_CACHE_CHILD=" + job.string();
  std::vector<const char*> argv{"/proc/self/exe", "--gtest_brief=1", "--gtest_filter=FillProcess.*", nullptr};
  std::vector<const char*> environment{variable.c_str(), nullptr};
  const pid_t child = ::vfork();
  if (child == 0) {
    ::execve(argv[0], const_cast<char**>(argv.data()), const_cast<char**>(environment.data()));
    ::_exit(127);
  }
  return child;
}

class Kill : public NodeCacheTest {
 protected:
  void job(int version, const chunk::ChunkId& digest) {
    const nlohmann::json job{{"prefix", prefix("nc1").string()},
                             {"cc", "http://" + cc_.url().authority()},
                             {"version", version},
                             {"digest", digest.hex()},
                             {"grant", cc_.grant("nc1", kImage, version)}};
    dir_.write("job", job.dump());
  }
  /// Kills the child once the cc sent so much; true if it was killed, false if it was faster.
  bool kill_after(std::uint64_t bytes) {
    const auto child = spawn_child(dir_ / "job");
    int status = 0;
    while (cc_.sent_bytes < bytes) {
      if (::waitpid(child, &status, WNOHANG) == child) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status);
  }
  int run_child() {
    const auto child = spawn_child(dir_ / "job");
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }
};

TEST_F(Kill, AKilledFillFetchesOnlyWhatIsMissing) {
  auto v1 = disk("v1", 512 * kMiB);
  v1.fill(1, 70);
  const auto digest = cc_.add(kImage, 1, v1);
  const auto total = cc_.data_bytes(kImage, 1);
  std::filesystem::create_directories(prefix("nc1"));
  job(1, digest);
  std::mt19937_64 random(std::random_device{}());
  cc_.bytes_per_s = 150 * kMiB;
  int kills = 0;
  std::uint64_t sent_before_kills = 0;
  for (; kills < 3; ++kills) {
    const auto until = sent_before_kills + total / 5 + random() % (total / 8);
    if (!kill_after(until)) break;
    sent_before_kills = cc_.sent_bytes;
  }
  EXPECT_GT(kills, 0);
  educloud::test::injected("transfer-cut", kills);
  cc_.bytes_per_s = 0;
  ASSERT_EQ(run_child(), 0);
  // A kill costs what was not committed (64 MiB, or 2 s) and what was on its way.
  const auto slack = static_cast<std::uint64_t>(kills) * (64 + 20) * kMiB;
  std::printf("kills %d, sent %llu of %llu MiB\n", kills,
              static_cast<unsigned long long>(cc_.sent_bytes / kMiB),
              static_cast<unsigned long long>(total / kMiB));
  EXPECT_LT(cc_.sent_bytes, total + slack);
  Node node(cc_, "nc1", prefix("nc1"));
  EXPECT_EQ(first_difference(node, 1, v1), std::nullopt);
  EXPECT_TRUE(node.staging_is_empty());
}

TEST_F(Kill, AKilledDeltaGoesOn) {
  auto v1 = disk("v1", 256 * kMiB);
  v1.fill(1, 80);
  const auto first = cc_.add(kImage, 1, v1);
  auto v2 = like("v2", v1);
  v2.change(2, 30);
  const auto second = cc_.add(kImage, 2, v2);
  std::filesystem::create_directories(prefix("nc1"));
  job(1, first);
  ASSERT_EQ(run_child(), 0);
  job(2, second);
  cc_.sent_bytes = 0;
  cc_.bytes_per_s = 20 * kMiB;
  EXPECT_TRUE(kill_after(50 * kMiB));
  const auto before = cc_.sent_bytes.load();
  cc_.bytes_per_s = 0;
  ASSERT_EQ(run_child(), 0);
  std::printf("sent %llu MiB before, %llu MiB after the kill\n",
              static_cast<unsigned long long>(before / kMiB),
              static_cast<unsigned long long>((cc_.sent_bytes - before) / kMiB));
  EXPECT_LT(cc_.sent_bytes - before, 70 * kMiB);
  Node node(cc_, "nc1", prefix("nc1"));
  EXPECT_EQ(first_difference(node, 2, v2), std::nullopt);
  EXPECT_EQ(first_difference(node, 1, v1), std::nullopt);
}

}  // namespace
}  // namespace educloud::nc
