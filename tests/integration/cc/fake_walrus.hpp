#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "common/base/clock.hpp"
#include "common/http/server.hpp"
#include "common/image/digest.hpp"
#include "common/image/version_store.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/raw_route.hpp"
#include "common/transfer/receipt.hpp"
#include "common/transfer/upload_server.hpp"
#include "integration/bus/test_broker.hpp"

namespace educloud::test {

inline const std::string kDataKey(64, 'a');

/// A standalone qcow2 of about `mib` MiB of random data at `path`.
inline std::string make_image(const std::filesystem::path& path, int mib) {
  const auto raw = path.string() + ".raw";
  TestBroker::run(
      {"dd", "if=/dev/urandom", "of=" + raw, "bs=1M", "count=" + std::to_string(mib), "status=none"});
  TestBroker::run({"qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, path.string()});
  std::filesystem::remove(raw);
  return *image::sha256_file(path);
}

/// The data routes of walrus over the real store and upload server, with its requests counted. It publishes
/// what it is given as it is.
class FakeWalrus {
 public:
  explicit FakeWalrus(int port = 0) : port_(port) { start(); }
  ~FakeWalrus() { stop(); }

  void start() {
    store_ = *image::VersionStore::open(dir_.path());
    transfer::UploadServerOptions options;
    options.folder = dir_.path() / "tmp" / "uploads";
    options.data_key = kDataKey;
    options.reserve_bytes = 0;
    options.processor = [this](const transfer::ProcessInput& input, std::stop_token) {
      return publish(input);
    };
    uploads_ = std::make_unique<transfer::UploadServer>(std::move(options));
    http::Router router;
    uploads_->add_routes(router);
    for (const char* method : {"GET", "HEAD"}) {
      router.add({.method = method,
                  .pattern = std::string(transfer::kRawPattern),
                  .handler = [this](const auto& r) { return serve(r); }});
    }
    server_ = std::make_unique<http::Server>(http::ServerOptions{.port = port_}, std::move(router));
    if (!uploads_->start() || !server_->start()) std::abort();
    port_ = server_->port();
  }
  void stop() {
    if (server_) server_->stop();
    if (uploads_) uploads_->stop();
    server_.reset();
    uploads_.reset();
    store_.reset();
  }
  /// Publishes a random image; returns its digest.
  std::string add(const std::string& imgid, int version, int mib = 4) {
    const auto staged = *store_->staging("made");
    const auto digest = make_image(staged, mib);
    image::VersionInfo info{imgid, version, digest, std::filesystem::file_size(staged)};
    info.virtual_size_bytes = static_cast<std::uint64_t>(mib) << 20;
    auto ok = store_->publish(staged, info);
    if (!ok) ADD_FAILURE() << ok.error().message;
    return digest;
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  image::VersionStore& store() { return *store_; }
  std::atomic<int> downloads{0};
  std::atomic<int> published{0};

 private:
  http::Response serve(const http::Request& request) {
    auto target = transfer::check_raw_request(request, kDataKey, SystemClock().wall_ms() / 1000);
    if (!target) return http::error_response(target.error());
    if (request.method == "GET") ++downloads;
    return transfer::serve_raw(request, *store_, *target);
  }
  Result<std::string> publish(const transfer::ProcessInput& input) {
    ++published;
    image::VersionInfo info{input.info.imgid, input.info.version, input.info.digest, input.info.length};
    info.virtual_size_bytes = 4 << 20;
    const auto staged = *store_->staging("up-" + input.info.uid);
    std::filesystem::copy_file(input.data, staged, std::filesystem::copy_options::overwrite_existing);
    if (auto ok = store_->publish(staged, info); !ok) return fail(ok.error());
    transfer::Receipt receipt{
        info.image, info.version, info.digest,       static_cast<std::int64_t>(info.size_bytes),
        4 << 20,    "qcow2",      input.info.parent, input.info.cmdid};
    return transfer::sign_receipt(kDataKey, receipt);
  }

  testing::TempDir dir_;
  int port_;
  std::unique_ptr<image::VersionStore> store_;
  std::unique_ptr<transfer::UploadServer> uploads_;
  std::unique_ptr<http::Server> server_;
};

/// A grant as clc makes it for node `node`.
inline std::string grant_for(const std::string& node, const std::string& method, const std::string& path,
                             const std::string& key = kDataKey) {
  return transfer::sign_grant(key, {method, path, node, SystemClock().wall_ms() / 1000 + 600});
}

}  // namespace educloud::test
