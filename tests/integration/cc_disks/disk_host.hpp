#pragma once

#include <cstdlib>
#include <memory>

#include "cc/disks/disk_routes.hpp"
#include "cc/relay/chunk_relay.hpp"
#include "common/http/server.hpp"
#include "integration/cc/chunk_walrus.hpp"
#include "support/temp_dir.hpp"
#include "walrus/store/chunk_service.hpp"
#include "walrus/store/publish.hpp"

namespace educloud::test {

/// walrus' own store and routes, in this process.
class RealWalrus {
 public:
  RealWalrus()
      : versions_(*image::VersionStore::open(dir_.path(), options())),
        chunks_(*chunk::ChunkStore::open(dir_ / "chunks", {})),
        publisher_(*versions_, *chunks_, chunk::kMaxDiskBytes),
        source_(*versions_, *chunks_),
        sink_(*chunks_, publisher_, {.prefix = dir_.path(), .data_key = kDataKey}),
        routes_({kDataKey, &clock_}, source_, &sink_),
        server_({}, router()) {
    auto started = server_.start();
    if (!started) std::abort();
  }
  ~RealWalrus() {
    routes_.stop();
    server_.stop();
  }
  http::Url url() const { return *http::Url::parse("http://127.0.0.1:" + std::to_string(server_.port())); }
  transfer::ChunkRemote remote(const std::string& imgid, int version, const std::string& method) const {
    return {url(), imgid, version, grant_for("cc1", method, transfer::version_path(imgid, version))};
  }
  Result<std::string> publish(const std::string& imgid, int version, const SampleDisk& disk) {
    transfer::ChunkClient client(remote(imgid, version, "PUT"));
    std::string frames;
    for (const auto& id : disk.order) frames += disk.frames.at(id);
    if (auto sent = client.store(frames, {}); !sent) return fail(sent.error());
    return client.publish({disk.manifest(), "", "", new_command_id().str()}, {});
  }

 private:
  static image::VersionStore::Options options() {
    image::VersionStore::Options out;
    out.payload = "manifest";
    return out;
  }
  http::Router router() {
    http::Router out;
    routes_.add_routes(out);
    return out;
  }

  const testing::TempDir dir_;
  const SystemClock clock_;
  std::unique_ptr<image::VersionStore> versions_;
  std::unique_ptr<chunk::ChunkStore> chunks_;
  walrus::Publisher publisher_;
  walrus::StoreSource source_;
  walrus::StoreSink sink_;
  transfer::ChunkRoutes routes_;
  http::Server server_;
};

/// The part of a cc that serves database disks, with its own chunk relay, behind HTTP.
class DiskHost {
 public:
  DiskHost(const std::filesystem::path& prefix, const RealWalrus& walrus, int iscsi_port)
      : versions_(*image::VersionStore::open(prefix, version_options())),
        cache_(*chunk::ChunkStore::open(prefix / "chunks", {.durable = false})),
        manifests_(*versions_),
        clients_({walrus.url(), {}, kDataKey, "cc1"}, clock_),
        upstream_({}, clients_, *cache_, clock_),
        relay_(manifests_, *cache_, upstream_, clients_),
        store_(options(prefix, walrus, iscsi_port), relay_),
        routes_(store_, kDataKey, clock_),
        server_({.threads = 4}, router()) {
    auto started = server_.start();
    if (!started) std::abort();
    store_.start();
  }
  ~DiskHost() {
    server_.stop();
    store_.stop();
    upstream_.stop();
  }
  http::Url url() const { return *http::Url::parse("http://127.0.0.1:" + std::to_string(server_.port())); }

 private:
  static image::VersionStore::Options version_options() {
    image::VersionStore::Options out;
    out.is_cache = true;
    out.payload = "manifest";
    return out;
  }
  static cc::DiskStore::Options options(const std::filesystem::path& prefix, const RealWalrus& walrus,
                                        int port) {
    cc::DiskStore::Options out;
    out.prefix = prefix;
    out.targets.port = port;
    out.targets.run_dir = prefix;
    out.nbd.run_dir = prefix;
    out.nbd.first_port = port + 1;
    out.portal_host = "127.0.0.1";
    out.walrus = [&walrus](const std::string& imgid, int version) {
      return walrus.remote(imgid, version, "PUT");
    };
    return out;
  }
  http::Router router() {
    http::Router out;
    routes_.add_routes(out);
    return out;
  }

  const SystemClock clock_;
  std::unique_ptr<image::VersionStore> versions_;
  std::unique_ptr<chunk::ChunkStore> cache_;
  cc::ManifestCache manifests_;
  cc::WalrusClients clients_;
  cc::Upstream upstream_;
  cc::ChunkRelay relay_;
  cc::DiskStore store_;
  cc::DiskRoutes routes_;
  http::Server server_;
};

}  // namespace educloud::test
