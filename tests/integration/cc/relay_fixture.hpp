#pragma once

#include <optional>
#include <thread>

#include "cc/relay/chunk_relay.hpp"
#include "cc/relay/peers.hpp"
#include "cc/relay/submit_relay.hpp"
#include "common/transfer/chunk_client.hpp"
#include "integration/bus/test_broker.hpp"
#include "integration/cc/chunk_walrus.hpp"

namespace educloud::test {

/// What a cc consists of towards its nodes, in this process, so that its cache can be small.
class Relay {
 public:
  struct Options {
    std::uint64_t cache_bytes = 1ull << 30;
    std::uint64_t pack_bytes = 64ull << 20;
    cc::Upstream::Options upstream = {};
    bool peers = true;
  };
  Relay(const std::filesystem::path& prefix, const std::string& walrus_url, const Options& options)
      : versions_(*image::VersionStore::open(prefix, version_options())),
        store_(*chunk::ChunkStore::open(prefix / "chunks", store_options(options))),
        manifests_(*versions_),
        walrus_({*http::Url::parse(walrus_url), {}, kDataKey, "cc1"}, clock_),
        upstream_(options.upstream, walrus_, *store_, clock_),
        relay_(manifests_, *store_, upstream_, walrus_),
        submits_({.data_key = kDataKey, .piece_bytes = 256 * 1024}, manifests_, *store_, walrus_, clock_),
        routes_({kDataKey, &clock_}, relay_, &submits_),
        peers_({options.peers, kDataKey}, peer_table, nodes, manifests_, clock_),
        server_({.threads = 4}, router()) {
    auto started = server_.start();
    if (!started) std::abort();
  }
  ~Relay() {
    submits_.stop();
    routes_.stop();
    server_.stop();
    upstream_.stop();
  }
  http::Url url() const { return *http::Url::parse("http://127.0.0.1:" + std::to_string(server_.port())); }
  chunk::ChunkStore& store() { return *store_; }

  cc::NodeRegistry nodes;
  cc::PeerTable peer_table;

 private:
  static image::VersionStore::Options version_options() {
    image::VersionStore::Options out;
    out.is_cache = true;
    out.payload = "manifest";
    return out;
  }
  static chunk::ChunkStore::Options store_options(const Options& options) {
    chunk::ChunkStore::Options out;
    out.durable = false;
    out.max_bytes = options.cache_bytes;
    out.pack_bytes = options.pack_bytes;
    return out;
  }
  http::Router router() {
    http::Router out;
    routes_.add_routes(out);
    peers_.add_routes(out);
    return out;
  }

  const SystemClock clock_;
  std::unique_ptr<image::VersionStore> versions_;
  std::unique_ptr<chunk::ChunkStore> store_;
  cc::ManifestCache manifests_;
  cc::WalrusClients walrus_;
  cc::Upstream upstream_;
  cc::ChunkRelay relay_;
  cc::SubmitRelay submits_;
  transfer::ChunkRoutes routes_;
  cc::Peers peers_;
  http::Server server_;
};

/// A node at the other end: fetches a whole disk and proves every chunk of it.
class Node {
 public:
  Node(const http::Url& cc, std::string name, const std::string& imgid, int version,
       transfer::Priority priority = transfer::Priority::user, const std::string& method = "GET")
      : client_(transfer::ChunkRemote{
            cc, imgid, version, grant_for(name, method, transfer::version_path(imgid, version)), priority}) {}

  transfer::ChunkClient* operator->() { return &client_; }

  /// The chunks in `ids`, `at_once` in one request. `on_chunk` with how many came so far.
  Result<> fetch(std::vector<chunk::ChunkId> ids, std::size_t at_once = 256,
                 const std::function<void(std::size_t)>& on_chunk = {}, std::stop_token stop = {}) {
    std::vector<char> raw(chunk::kChunkBytes);
    chunk::FrameDecoder decoder;
    std::size_t count = 0;
    for (std::size_t at = 0; at < ids.size(); at += at_once) {
      const auto some = std::span(ids).subspan(at, std::min(at_once, ids.size() - at));
      auto ok = client_.fetch(
          some,
          [&](const chunk::FrameHeader& header, std::span<const char> stored) -> Result<> {
            if (auto good = decoder.decode(header, stored, raw); !good) return good;
            if (on_chunk) on_chunk(++count);
            return {};
          },
          stop);
      if (!ok) return ok;
    }
    return {};
  }
  /// Manifest, groups, chunks.
  Result<> fetch_all(const SampleDisk& disk) {
    auto manifest = client_.manifest(disk.digest(), {});
    if (!manifest) return fail(manifest.error());
    auto map = transfer::fetch_map(client_, *manifest, {}, {});
    if (!map) return fail(map.error());
    if (map->serialize() != disk.map.serialize()) return fail(ErrorCode::corrupt, "another disk came");
    return fetch(disk.order);
  }

 private:
  transfer::ChunkClient client_;
};

}  // namespace educloud::test
