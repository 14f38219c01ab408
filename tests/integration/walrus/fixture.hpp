#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <fstream>
#include <random>

#include "common/base/ids.hpp"
#include "common/bus/memory_bus.hpp"
#include "common/chunk/frame.hpp"
#include "common/chunk/manifest.hpp"
#include "common/http/client.hpp"
#include "common/image/digest.hpp"
#include "common/image/version_store.hpp"
#include "common/msg/command.hpp"
#include "common/msg/task_status.hpp"
#include "common/sys/process.hpp"
#include "common/transfer/chunk_client.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"
#include "common/transfer/upload_client.hpp"
#include "support/temp_dir.hpp"
#include "walrus/app/service.hpp"
#include "walrus/store/export.hpp"
#include "walrus/store/fsck.hpp"

namespace educloud::walrus {

inline const std::string kKey(64, 'e');
inline constexpr const char* kImage = "IMG01234567";
inline constexpr const char* kTid = "IMG01234567:IMG01234567:TMP89abcdef";

/// Looks every few milliseconds until `done`, for at most 60 s.
template <class Condition>
bool eventually(Condition done) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!done()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

inline std::string run(std::vector<std::string> argv) {
  sys::ProcessOptions options;
  options.argv = std::move(argv);
  auto out = sys::run_checked(options);
  if (!out) ADD_FAILURE() << out.error().message;
  return out.value_or("");
}

inline std::string grant(const std::string& method, const std::string& path, const std::string& node) {
  return transfer::sign_grant(kKey, {method, path, node, SystemClock().wall_ms() / 1000 + 3600});
}

inline msg::Command make_command(const std::string& op, int version = 1) {
  msg::Command command;
  command.op = op;
  command.tid = kTid;
  command.cmdid = new_command_id().str();
  command.target_imgid = kImage;
  command.target_version = version;
  command.epoch = 1;
  command.attempt = 1;
  command.deadline = SystemClock().wall_ms() + 3'600'000;
  return command;
}

inline transfer::UploadRequest make_upload(const std::string& url, const std::filesystem::path& file,
                                           int version, const std::string& node, const std::string& format) {
  transfer::UploadRequest request{*http::Url::parse(url)};
  request.grant = grant("PUT", transfer::version_path(kImage, version), node);
  request.imgid = kImage;
  request.version = version;
  request.file = file;
  request.format = format;
  request.stall_timeout = std::chrono::seconds(60);
  return request;
}

/// A disk as a host would submit it: its map, and each chunk and group by id.
struct CutDisk {
  chunk::DiskMap map;
  std::map<chunk::ChunkId, std::string> content;

  explicit CutDisk(const std::string& disk) : map(disk.size()) {
    for (std::size_t at = 0; at < disk.size(); at += chunk::kChunkBytes) {
      const auto piece = disk.substr(at, chunk::kChunkBytes);
      if (piece.find_first_not_of('\0') == std::string::npos) continue;
      const auto id = chunk::ChunkId::of(piece);
      map.set(at / chunk::kChunkBytes, id);
      content[id] = piece;
    }
    for (const auto& [index, group] : map.groups())
      content[chunk::ChunkId::of(group.encode())] = group.encode();
  }
  std::vector<chunk::ChunkId> ids() const {
    std::vector<chunk::ChunkId> all;
    for (const auto& [id, bytes] : content) all.push_back(id);
    return all;
  }
};

inline transfer::ChunkClient chunk_client(const std::string& url, int version, const std::string& method) {
  transfer::ChunkRemote remote;
  remote.base = *http::Url::parse(url);
  remote.imgid = kImage;
  remote.version = version;
  remote.grant = grant(method, transfer::version_path(kImage, version), "nc1");
  return transfer::ChunkClient(std::move(remote));
}

struct Submitted {
  Result<std::string> receipt;
  std::size_t sent_chunks = 0;
};

/// As nc does it through cc.
inline Submitted submit_disk(const std::string& url, const CutDisk& disk, int version,
                             const std::string& parent = "", const std::string& if_current = "") {
  Submitted out{fail(ErrorCode::internal, "not reached")};
  auto client = chunk_client(url, version, "PUT");
  const auto ids = disk.ids();
  auto missing = client.missing(ids, {});
  if (!missing) {
    out.receipt = fail(missing.error());
    return out;
  }
  chunk::FrameEncoder encoder;
  std::string frames;
  const auto send = [&]() -> Result<> {
    if (frames.empty()) return {};
    auto ok = client.store(frames, {});
    frames.clear();
    return ok;
  };
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!(*missing)[i]) continue;
    ++out.sent_chunks;
    auto ok = encoder.append(ids[i], disk.content.at(ids[i]), frames);
    EXPECT_TRUE(ok.has_value());
    if (frames.size() < (8u << 20)) continue;
    if (auto sent = send(); !sent) {
      out.receipt = fail(sent.error());
      return out;
    }
  }
  if (auto sent = send(); !sent) {
    out.receipt = fail(sent.error());
    return out;
  }
  out.receipt =
      client.publish({disk.map.manifest().encode(), parent, if_current, new_command_id().str()}, {});
  return out;
}

/// Bytes that no compressor makes smaller, the same for the same seed.
inline std::string noise(std::size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string out(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(out.data() + i, &word, 8);
  }
  return out;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::uint64_t kMemoryFactor = 8;  // sanitizers keep what was freed
#else
inline constexpr std::uint64_t kMemoryFactor = 1;
#endif

/// Largest resident size of this process since reset_peak(), in MiB.
inline void reset_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}
inline std::uint64_t peak_mib() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) / 1024;
  }
  return 0;
}

/// walrus in this process, with a broker in memory whose other side (clc) is the test.
class WalrusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    broker_.bind("walrus_cmd", "walrus", "walrus_cmd_queue");
    broker_.bind("clc_status", "taskstatus.#", "clc_status_queue");
    config_.common.host = "walrus1";
    config_.common.prefix = dir_ / "storage";
    config_.common.state_dir = dir_ / "state";
    config_.common.listen = "127.0.0.1";
    config_.common.port = 0;
    config_.reserve_bytes = 1 << 20;
    clc_ = broker_.connect("clc");
    clc_->subscribe({"clc_status_queue", 100, [this](bus::Delivery delivery) {
                       if (auto status = msg::parse<msg::TaskStatus>(delivery.body)) {
                         const std::lock_guard lock(mutex_);
                         statuses_.push_back(*status);
                       }
                       delivery.settle(bus::Verdict::ack);
                     }});
    clc_->start({});
    start();
  }
  void TearDown() override { stop(); }
  void start() {
    bus_ = broker_.connect("walrus");
    service_ = std::make_unique<Service>(config_, kKey, *bus_, clock_);
    auto ok = service_->start();
    ASSERT_TRUE(ok.has_value()) << ok.error().message;
    url_ = "http://127.0.0.1:" + std::to_string(service_->port());
  }
  void stop() {
    if (service_) service_->stop();
    service_.reset();
    bus_.reset();
  }
  void send(const msg::Command& command) {
    bus::Outgoing out;
    out.exchange = "walrus_cmd";
    out.routing_key = "walrus";
    out.body = msg::serialize(command);
    ASSERT_TRUE(clc_->publish(std::move(out), [](bus::Outcome) {}).has_value());
    broker_.deliver_all();
  }
  /// Statuses for `cmdid` so far.
  std::vector<msg::TaskStatus> told(const std::string& cmdid) {
    broker_.deliver_all();
    const std::lock_guard lock(mutex_);
    std::vector<msg::TaskStatus> out;
    for (const auto& one : statuses_) {
      if (one.cmdid == cmdid) out.push_back(one);
    }
    return out;
  }
  /// The first final status of `cmdid`.
  msg::TaskStatus final_status(const std::string& cmdid) {
    msg::TaskStatus found;
    const bool came = eventually([&] {
      for (const auto& one : told(cmdid)) {
        if (one.final == 1) found = one;
      }
      return found.final == 1;
    });
    EXPECT_TRUE(came) << "no final status for " << cmdid;
    return found;
  }
  msg::TaskStatus order(msg::Command command) {
    send(command);
    return final_status(command.cmdid);
  }
  /// Begins an import and waits until walrus expects the upload.
  msg::Command expect_import(int version = 1) {
    auto command = make_command("image/import", version);
    send(command);
    EXPECT_TRUE(eventually([&] { return !told(command.cmdid).empty(); }));
    return command;
  }
  Result<std::string> upload(const std::filesystem::path& file, int version, const std::string& format) {
    return transfer::upload_version(make_upload(url_, file, version, "user", format));
  }
  Submitted submit(const std::string& disk, int version, const std::string& parent = "",
                   const std::string& if_current = "") {
    return submit_disk(url_, CutDisk(disk), version, parent, if_current);
  }
  bool is_published(int version) const {
    return std::filesystem::exists(config_.common.prefix / "images" / kImage / "versions" /
                                   std::to_string(version) / "manifest");
  }
  int current() const {
    std::error_code none;
    const auto link =
        std::filesystem::read_symlink(config_.common.prefix / "images" / kImage / "manifest", none);
    return none ? 0 : std::stoi(link.parent_path().filename().string());
  }
  /// The version as a raw file.
  std::filesystem::path exported(int version) {
    const auto file = dir_ / ("export" + std::to_string(++exports_) + ".raw");
    auto done = export_version({config_.common.prefix, kImage, version, file});
    EXPECT_TRUE(done.has_value()) << done.error().message;
    return file;
  }
  std::string content(int version) { return educloud::testing::slurp(exported(version)); }
  void expect_sound() {
    auto report = fsck({config_.common.prefix});
    ASSERT_TRUE(report.has_value()) << report.error().message;
    for (const auto& damage : report->damages) ADD_FAILURE() << damage.id << ": " << damage.what;
    EXPECT_TRUE(report->is_clean());
  }
  /// Nothing but published versions and our own bookkeeping is left below the prefix.
  void expect_no_leftovers() {
    EXPECT_TRUE(eventually([&] {
      for (const char* folder : {"tmp/staging", "tmp/publish", "tmp/trash"}) {
        std::error_code none;
        if (!std::filesystem::is_empty(config_.common.prefix / folder, none) && !none) return false;
      }
      return true;
    }));
  }
  std::filesystem::path make_image(const std::string& name, const std::string& format,
                                   const std::string& source = "") {
    const auto file = dir_ / name;
    run({"qemu-img", "convert", "-q", "-f", "raw", "-O", format, source.empty() ? raw().string() : source,
         file.string()});
    return file;
  }
  /// A 20 MiB disk with something in it.
  const std::filesystem::path& raw() {
    if (raw_.empty()) {
      std::string data(20 << 20, '\0');
      for (std::size_t i = 0; i < (6u << 20); ++i)
        data[(1 << 20) + i] = static_cast<char>(i * 2654435761u >> 13);
      raw_ = dir_.write("disk.raw", data);
    }
    return raw_;
  }

  educloud::testing::TempDir dir_;
  SystemClock clock_;
  WalrusConfig config_;
  bus::MemoryBroker broker_;
  std::unique_ptr<bus::Bus> clc_, bus_;
  std::unique_ptr<Service> service_;
  std::string url_;
  std::mutex mutex_;
  std::vector<msg::TaskStatus> statuses_;
  std::filesystem::path raw_;
  int exports_ = 0;
};

}  // namespace educloud::walrus
