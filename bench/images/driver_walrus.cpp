#include "common/image/version_store.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "images/driver.hpp"
#include "walrus/store/catalogue.hpp"
#include "walrus/store/chunk_service.hpp"
#include "walrus/store/ingest.hpp"

namespace educloud::bench {
namespace {

constexpr std::uint64_t kMaxDiskBytes = 1ull << 40;

Result<std::unique_ptr<image::VersionStore>> open_versions(const std::string& dir) {
  image::VersionStore::Options options;
  options.payload = "manifest";
  return image::VersionStore::open(dir, options);
}

}  // namespace

Result<> import_disk(const Words& words) {
  const std::string& dir = words[0];
  auto versions = open_versions(dir);
  if (!versions) return fail(versions.error());
  auto chunks = chunk::ChunkStore::open(walrus::chunk_folder(dir), {});
  if (!chunks) return fail(chunks.error());
  walrus::IngestRequest request;
  request.raw = words[3];
  request.disk_bytes = std::filesystem::file_size(words[3]);
  const auto start = std::chrono::steady_clock::now();
  auto ingested = walrus::ingest(**chunks, request, {});
  if (!ingested) return fail(ingested.error());
  const auto manifest = ingested->map.manifest();
  walrus::Publisher publisher(**versions, **chunks, kMaxDiskBytes);
  walrus::PublishRequest publish;
  publish.imgid = words[1];
  publish.version = std::stoi(words[2]);
  publish.manifest = manifest.encode();
  publish.take_into_use = true;
  auto receipt = publisher.publish(publish, {});
  if (!receipt) return fail(receipt.error());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  say({{"digest", receipt->digest},
       {"data_bytes", manifest.data_bytes},
       {"stored_bytes", ingested->new_bytes},
       {"seconds", taken.count()}});
  return {};
}

Result<> serve_walrus(const Words& words) {
  const std::string& dir = words[0];
  auto versions = open_versions(dir);
  if (!versions) return fail(versions.error());
  auto chunks = chunk::ChunkStore::open(walrus::chunk_folder(dir), {});
  if (!chunks) return fail(chunks.error());
  walrus::Publisher publisher(**versions, **chunks, kMaxDiskBytes);
  walrus::StoreSource source(**versions, **chunks);
  walrus::StoreSink::Options sink_options;
  sink_options.prefix = dir;
  sink_options.data_key = data_key();
  walrus::StoreSink sink(**chunks, publisher, sink_options);
  const SystemClock clock;
  transfer::ChunkRouteOptions options;
  options.key = data_key();
  options.clock = &clock;
  transfer::ChunkRoutes routes(options, source, &sink);
  http::Router router;
  routes.add_routes(router);
  auto done = serve(std::move(router), words[1], words[2]);
  routes.stop();
  return done;
}

}  // namespace educloud::bench
