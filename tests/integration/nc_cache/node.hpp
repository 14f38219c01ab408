#pragma once

#include <optional>

#include "common/image/qcow2_layer.hpp"
#include "common/image/version_store.hpp"
#include "integration/nc_cache/fake_cc.hpp"
#include "nc/cache/node_cache.hpp"
#include "support/temp_dir.hpp"

namespace educloud::nc {

/// A node: its disk, its cache and the server neighbours reach.
class Node {
 public:
  Node(FakeCc& cc, std::string name, std::filesystem::path prefix, CacheOptions options = {})
      : cc_(cc), name_(std::move(name)), prefix_(std::move(prefix)), options_(std::move(options)) {
    std::filesystem::create_directories(prefix_);
    start();
  }
  ~Node() { stop(); }

  void start() {
    image::VersionStore::Options store_options;
    store_options.is_cache = true;
    auto store = image::VersionStore::open(prefix_, store_options);
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    auto options = options_;
    options.cc = cc_.url();
    options.host = name_;
    options.node_key = transfer::derive_node_key(kDataKey, name_);
    cache_ = std::make_unique<NodeCache>(options, *store_, clock_);
    if (cache_->source() == nullptr) return;
    http::Router router;
    routes_ = std::make_unique<transfer::ChunkRoutes>(
        transfer::ChunkRouteOptions{.key = options.node_key, .clock = &clock_}, *cache_->source(), nullptr);
    routes_->add_routes(router);
    server_ = std::make_unique<http::Server>(http::ServerOptions{}, std::move(router));
    const auto started = server_->start();
    ASSERT_TRUE(started) << started.error().message;
    cc_.know(name_, "http://127.0.0.1:" + std::to_string(server_->port()));
  }
  void stop() {
    if (routes_) routes_->stop();
    if (server_) server_->stop(std::chrono::seconds{0});
    if (cache_) cache_->stop();
    server_.reset();
    routes_.reset();
    cache_.reset();
    store_.reset();
  }

  FillRequest request(int version, const chunk::ChunkId& digest, const std::string& imgid = kImage) const {
    FillRequest request;
    request.imgid = imgid;
    request.version = version;
    request.digest = digest;
    request.grant = cc_.grant(name_, imgid, version);
    return request;
  }
  Result<> fill(int version, const chunk::ChunkId& digest, const std::string& imgid = kImage) {
    return cache_->fill(request(version, digest, imgid), [](std::uint64_t, std::uint64_t) {}, {});
  }
  NodeCache& cache() { return *cache_; }
  image::VersionStore& store() { return *store_; }
  const std::filesystem::path& prefix() const { return prefix_; }
  std::filesystem::path machine(int version, const std::string& imgid = kImage) {
    return store_->machine_path(imgid, version);
  }
  bool staging_is_empty() const { return std::filesystem::is_empty(prefix_ / "tmp" / "staging"); }

 private:
  FakeCc& cc_;
  const std::string name_;
  const std::filesystem::path prefix_;
  const CacheOptions options_;
  SystemClock clock_;
  std::unique_ptr<image::VersionStore> store_;
  std::unique_ptr<NodeCache> cache_;
  std::unique_ptr<transfer::ChunkRoutes> routes_;
  std::unique_ptr<http::Server> server_;
};

/// First chunk at which a version, read through its layers, is not the disk; nullopt: all is the same.
inline std::optional<std::uint64_t> first_difference(Node& node, int version, const DiskFile& disk,
                                                     const std::string& imgid = kImage) {
  auto layers = node.cache().layers(imgid, version);
  if (!layers) return 0;
  std::vector<image::LayeredDisk::Layer> files;
  for (const auto& layer : *layers) files.push_back({layer.file, layer.format});
  auto opened = image::LayeredDisk::open(files);
  if (!opened || opened->disk_bytes() != disk.bytes()) return 0;
  const sys::Fd fd(::open(disk.path().c_str(), O_RDONLY | O_CLOEXEC));
  std::string mine, theirs;
  for (std::uint64_t at = 0; at < chunk::chunk_count(disk.bytes()); ++at) {
    mine.assign(chunk::chunk_length(disk.bytes(), at), 'x');
    theirs.assign(mine.size(), 'y');
    if (!opened->read(at * kChunk, mine)) return at;
    if (::pread(fd.get(), theirs.data(), theirs.size(), static_cast<off_t>(at * kChunk)) !=
        static_cast<ssize_t>(theirs.size()))
      return at;
    if (mine != theirs) return at;
  }
  return std::nullopt;
}

class NodeCacheTest : public ::testing::Test {
 protected:
  std::filesystem::path prefix(const std::string& name) const { return dir_ / name; }
  DiskFile disk(const std::string& name, std::uint64_t bytes) { return DiskFile(dir_ / name, bytes); }
  /// A copy of a disk, to be changed.
  DiskFile like(const std::string& name, const DiskFile& other) {
    DiskFile made(dir_ / name, other.bytes());
    std::filesystem::copy_file(other.path(), made.path(), std::filesystem::copy_options::overwrite_existing);
    return DiskFile::reopen(made.path(), other.bytes());
  }

  educloud::testing::TempDir dir_;
  FakeCc cc_{dir_.path()};
};

}  // namespace educloud::nc
