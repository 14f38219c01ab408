#include "common/http/server.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"
#include "images/driver.hpp"
#include "nc/cache/node_cache.hpp"
#include "nc/cache/submit.hpp"

namespace educloud::bench {
namespace {

std::string grant(std::string_view method, const std::string& imgid, int version, const std::string& host) {
  const auto now_s = SystemClock{}.wall_ms() / 1000;
  return transfer::sign_grant(
      data_key(), {std::string(method), transfer::version_path(imgid, version), host, now_s + 3600});
}

}  // namespace

Result<> fill(const Words& words) {
  const auto& [dir, host, address, upstream, imgid] =
      std::tie(words[0], words[1], words[2], words[3], words[4]);
  auto url = http::Url::parse(upstream);
  if (!url) return fail(url.error());
  auto digest = chunk::ChunkId::parse(words[6]);
  if (!digest) return fail(digest.error());
  const bool peers = words[7] == "peers";
  auto store = image::VersionStore::open(dir, {.is_cache = true});
  if (!store) return fail(store.error());
  const SystemClock clock;
  nc::CacheOptions options;
  options.cc = *url;
  options.host = host;
  options.node_key = transfer::derive_node_key(data_key(), host);
  options.advertise_url = "http://" + address + ":8003";
  options.peers = peers;
  nc::NodeCache cache(options, **store, clock);
  std::unique_ptr<transfer::ChunkRoutes> routes;
  std::unique_ptr<http::Server> server;
  if (peers) {
    transfer::ChunkRouteOptions route_options;
    route_options.key = options.node_key;
    route_options.clock = &clock;
    routes = std::make_unique<transfer::ChunkRoutes>(route_options, *cache.source(), nullptr);
    http::Router router;
    routes->add_routes(router);
    http::ServerOptions server_options;
    server_options.address = address;
    server_options.port = 8003;
    server = std::make_unique<http::Server>(server_options, std::move(router));
    if (auto ok = server->start(); !ok) return ok;
  }
  nc::FillRequest request;
  request.imgid = imgid;
  request.version = std::stoi(words[5]);
  request.digest = *digest;
  request.grant = grant("GET", imgid, request.version, host);
  auto done = cache.fill(request, {}, {});
  if (!done) return done;
  say({{"filled", request.version}});
  wait_for_end_of_input();
  if (server) server->stop();
  if (routes) routes->stop();
  cache.stop();
  return {};
}

Result<> submit(const Words& words) {
  const auto& [dir, host, upstream, imgid] = std::tie(words[0], words[1], words[2], words[3]);
  const int version = std::stoi(words[4]), base = std::stoi(words[5]);
  auto url = http::Url::parse(upstream);
  if (!url) return fail(url.error());
  auto store = image::VersionStore::open(dir, {.is_cache = true});
  if (!store) return fail(store.error());
  const SystemClock clock;
  nc::CacheOptions options;
  options.cc = *url;
  options.host = host;
  options.peers = false;
  nc::NodeCache cache(options, **store, clock);
  auto map = cache.map(imgid, base);
  if (!map) return fail(map.error());
  auto layers = cache.layers(imgid, base);
  if (!layers) return fail(layers.error());
  nc::SubmitRequest request;
  request.remote.base = *url;
  request.remote.imgid = imgid;
  request.remote.version = version;
  request.remote.grant = grant("PUT", imgid, version, host);
  request.layers.push_back({words[6], "qcow2"});
  for (const auto& layer : *layers) request.layers.push_back({layer.file, layer.format});
  request.base = std::move(*map);
  request.parent = transfer::make_parent(imgid, base);
  request.if_current = request.parent;
  request.cmdid = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c";
  auto report = nc::submit_changes(request, {}, {});
  if (!report) return fail(report.error());
  say({{"sent_bytes", report->sent_bytes},
       {"changed_bytes", report->changed_bytes},
       {"candidate_bytes", report->candidate_bytes}});
  return {};
}

}  // namespace educloud::bench
