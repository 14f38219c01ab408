#pragma once

#include <gmock/gmock.h>

#include <atomic>
#include <map>
#include <random>

#include "cli/commands/program.hpp"
#include "cli/core/session.hpp"
#include "cli/image/download.hpp"
#include "common/base/clock.hpp"
#include "common/http/server.hpp"
#include "common/sys/file.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "common/transfer/grant.hpp"
#include "support/temp_dir.hpp"

namespace educloud::cli {

inline constexpr const char* kImage = "IMG0123abcd";
inline const std::string kKey = std::string(64, '7');

/// Versions of one image in memory, as walrus would serve them. Can be told to misbehave.
class MemorySource : public transfer::ChunkSource {
 public:
  /// Cuts `disk` into chunks; what is zero is a hole.
  chunk::ChunkId add(int version, const std::string& disk) {
    chunk::DiskMap map(disk.size());
    for (std::uint64_t at = 0; at * chunk::kChunkBytes < disk.size(); ++at) {
      const auto piece = disk.substr(at * chunk::kChunkBytes, chunk::kChunkBytes);
      if (piece.find_first_not_of('\0') == std::string::npos) continue;
      map.set(at, keep(piece));
    }
    for (const auto& [index, group] : map.groups()) keep(group.encode());
    manifests_[version] = map.manifest().encode();
    return map.manifest().digest();
  }

  Result<std::string> manifest(const transfer::ChunkCaller& caller, std::stop_token) override {
    const auto at = manifests_.find(caller.version);
    if (at == manifests_.end()) return fail(ErrorCode::not_found, "no such version");
    return at->second;
  }
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller&, std::vector<chunk::ChunkId> ids,
                                        std::stop_token) override {
    return std::make_unique<Some>(*this, std::move(ids));
  }

  std::atomic<int> served{0};
  std::atomic<int> fail_after{-1};  ///< frames, until every further one is unavailable; -1: never
  chunk::ChunkId forged;            ///< this one is served with other content

 private:
  struct Some : Reading {
    Some(MemorySource& from, std::vector<chunk::ChunkId> wanted) : source(from), ids(std::move(wanted)) {}
    Result<transfer::Frame> frame(std::size_t i) override {
      const int limit = source.fail_after;
      if (limit >= 0 && source.served >= limit) return fail(ErrorCode::unavailable, "gone for a while");
      const auto at = source.frames_.find(ids[i]);
      if (at == source.frames_.end()) return fail(ErrorCode::not_found, "no such chunk");
      ++source.served;
      if (ids[i] != source.forged) return transfer::Frame(std::make_shared<const std::string>(at->second));
      chunk::FrameEncoder encoder;
      std::string lie;
      (void)encoder.append(ids[i], std::string(chunk::kChunkBytes, 'X'), lie);
      return transfer::Frame(std::make_shared<const std::string>(std::move(lie)));
    }
    MemorySource& source;
    std::vector<chunk::ChunkId> ids;
  };
  chunk::ChunkId keep(const std::string& bytes) {
    chunk::FrameEncoder encoder;
    std::string frame;
    const auto header = encoder.append(bytes, frame);
    EXPECT_TRUE(header);
    frames_[header->id] = std::move(frame);
    return header->id;
  }
  std::map<chunk::ChunkId, std::string> frames_;
  std::map<int, std::string> manifests_;
};

/// A disk with data, long holes, text and a last chunk that is not full.
inline std::string sample_disk(unsigned seed, std::size_t bytes = (40u << 20) + 1234) {
  std::mt19937_64 random(seed);
  std::string disk(bytes, '\0');
  for (std::size_t at = 0; at + chunk::kChunkBytes < bytes; at += chunk::kChunkBytes) {
    const auto kind = random() % 4;
    if (kind < 2) continue;
    for (std::size_t i = 0; i < chunk::kChunkBytes; i += 8) {
      const std::uint64_t word = kind == 2 ? random() : 0x656d6f7320747865;
      std::memcpy(disk.data() + at + i, &word, 8);
    }
  }
  disk.back() = 'e';
  return disk;
}

/// walrus' data routes and the few of clc that the commands ask, on one real server.
class CliImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    transfer::ChunkRouteOptions options;
    options.key = kKey;
    options.clock = &clock;
    routes_ = std::make_unique<transfer::ChunkRoutes>(options, source, nullptr);
    http::Router router;
    routes_->add_routes(router);
    const std::string api = "/clc/api/1.0/images/{id}";
    router.add({.method = "GET", .pattern = api, .handler = [this](const http::Request&) {
                  return http::json_response(image_answer);
                }});
    router.add({.method = "GET", .pattern = api + "/versions", .handler = [this](const http::Request&) {
                  return http::json_response({{"items", version_items}, {"next", nullptr}});
                }});
    router.add({.method = "POST",
                .pattern = api + "/versions/{n}/url",
                .handler = [this](const http::Request& request) {
                  return http::json_response(url_answer(std::stoi(request.param("n"))));
                }});
    router.add({.method = "POST", .pattern = api + "/push", .handler = [this](const http::Request& request) {
                  pushed = request.body;
                  return http::json_response(push_answer, 202);
                }});
    server_ = std::make_unique<http::Server>(http::ServerOptions{.threads = 4}, std::move(router));
    ASSERT_TRUE(server_->start());
    const auto file = dir / "credentials";
    ASSERT_TRUE(save_credentials(file, {base(), "admin", "token", 0}));
    ::setenv("EDUCLOUD_TOKEN_FILE", file.c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("EDUCLOUD_TOKEN_FILE");
    server_->stop();
    routes_->stop();
  }

  std::string base() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  nlohmann::json url_answer(int version) {
    const std::string path = transfer::version_path(kImage, version);
    const auto query =
        transfer::sign_grant(kKey, {"GET", path, "user", clock.wall_ms() / 1000 + (expired ? -10 : 3600)});
    return {{"imgid", kImage},
            {"version", version},
            {"url", base() + path + "/raw"},
            {"manifest_url", base() + path + "/manifest"},
            {"query", query},
            {"expires", clock.wall_ms() + 3'600'000},
            {"digest", digests[version].hex()},
            {"size_bytes", 1},
            {"virtual_size_bytes", 1}};
  }
  void publish(int version, const std::string& disk) { digests[version] = source.add(version, disk); }

  Result<DownloadReport> download(int version, const std::filesystem::path& file,
                                  std::chrono::seconds patience = std::chrono::seconds{20}) {
    auto parsed = parse_signed_version(url_answer(version));
    if (!parsed) return fail(parsed.error());
    DownloadRequest request;
    request.version = *parsed;
    request.file = file;
    request.patience = patience;
    return download_disk(request, [](std::uint64_t, std::uint64_t) {});
  }

  /// Runs the program; its exit code. What it printed is in `out` and `err`.
  int run(std::vector<std::string> words) {
    words.insert(words.begin(), "educloud");
    std::vector<const char*> argv;
    for (const auto& word : words) argv.push_back(word.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = run_program(static_cast<int>(argv.size()), argv.data());
    out = ::testing::internal::GetCapturedStdout();
    err = ::testing::internal::GetCapturedStderr();
    return code;
  }
  static std::string content(const std::filesystem::path& file) {
    return sys::read_file(file, 1u << 30).value_or("");
  }

  educloud::testing::TempDir dir;
  SystemClock clock;
  MemorySource source;
  std::map<int, chunk::ChunkId> digests;
  bool expired = false;
  nlohmann::json image_answer = {{"imgid", kImage}, {"version", 1}};
  nlohmann::json version_items = {{{"size_bytes", 1 << 20}}, {{"size_bytes", 2 << 20}}};
  nlohmann::json push_answer;
  std::string pushed, out, err;

 private:
  std::unique_ptr<transfer::ChunkRoutes> routes_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace educloud::cli
