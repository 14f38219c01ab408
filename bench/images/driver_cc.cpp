#include "cc/relay/chunk_relay.hpp"
#include "cc/relay/peers.hpp"
#include "cc/relay/submit_relay.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "images/driver.hpp"

namespace educloud::bench {

Result<> serve_cc(const Words& words) {
  const std::string& dir = words[0];
  auto walrus_url = http::Url::parse(words[3]);
  if (!walrus_url) return fail(walrus_url.error());
  image::VersionStore::Options version_options;
  version_options.is_cache = true;
  version_options.payload = "manifest";
  auto versions = image::VersionStore::open(dir, version_options);
  if (!versions) return fail(versions.error());
  chunk::ChunkStore::Options store_options;
  store_options.durable = false;
  store_options.max_bytes = 20ull << 30;
  store_options.pack_bytes = 64ull << 20;
  auto store = chunk::ChunkStore::open(std::filesystem::path(dir) / "chunks", store_options);
  if (!store) return fail(store.error());

  const SystemClock clock;
  cc::NodeRegistry nodes;
  for (std::size_t i = 5; i < words.size(); ++i) {
    const auto equals = words[i].find('=');
    auto ok =
        nodes.remember(words[i].substr(0, equals), {words[i].substr(equals + 1), 8003}, clock.boot_ms());
    if (!ok) return ok;
  }
  cc::PeerTable table;
  cc::ManifestCache manifests(**versions);
  cc::WalrusClients::Options client_options;
  client_options.walrus = *walrus_url;
  client_options.data_key = data_key();
  client_options.host = "cc";
  cc::WalrusClients walrus(client_options, clock);
  cc::Upstream upstream({}, walrus, **store, clock);
  cc::ChunkRelay relay(manifests, **store, upstream, walrus);
  cc::SubmitRelay::Options submit_options;
  submit_options.data_key = data_key();
  cc::SubmitRelay submits(submit_options, manifests, **store, walrus, clock);
  transfer::ChunkRouteOptions route_options;
  route_options.key = data_key();
  route_options.clock = &clock;
  transfer::ChunkRoutes routes(route_options, relay, &submits);
  cc::Peers peers({words[4] == "peers", data_key()}, table, nodes, manifests, clock);
  http::Router router;
  routes.add_routes(router);
  peers.add_routes(router);
  auto done = serve(std::move(router), words[1], words[2]);
  routes.stop();
  submits.stop();
  upstream.stop();
  return done;
}

}  // namespace educloud::bench
