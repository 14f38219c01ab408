#include "cc/relay/upload_relay.hpp"

#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/image/digest.hpp"
#include "common/obs/log.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"
#include "common/transfer/upload_client.hpp"

namespace educloud::cc {
namespace {

constexpr std::int64_t kGrantSeconds = 24 * 3600;
/// walrus may be away for a while; the node's file waits here.
constexpr std::chrono::minutes kWalrusAway{15};

Result<> admit(const transfer::UploadInfo& info) {
  if (!HostName::parse(info.node) || info.node == transfer::kUserNode) {
    return fail(ErrorCode::permission_denied,
                "a cluster controller takes uploads of its nodes only; upload to walrus");
  }
  if (info.cmdid.empty())
    return fail(ErrorCode::invalid_argument, "the metadata must name the cmdid", "cmdid");
  if (info.digest.empty())
    return fail(ErrorCode::invalid_argument, "the metadata must name the digest", "digest");
  return {};
}

Result<> check_digest(const transfer::ProcessInput& input, std::stop_token stop) {
  auto digest = image::sha256_file(
      input.data,
      [&](std::uint64_t done, std::uint64_t total) {
        input.progress({"checking", done, total});
      },
      stop);
  if (!digest) return fail(digest.error());
  if (*digest == input.info.digest) return {};
  return fail(ErrorCode::corrupt, "what arrived of image " + input.info.imgid + " version " +
                                      std::to_string(input.info.version) + " has digest " + *digest +
                                      ", the node said " + input.info.digest);
}

/// Keeps what walrus published if it is byte for byte what passed here.
void keep(ImageCache& cache, const transfer::ProcessInput& input, const transfer::Receipt& receipt) {
  if (receipt.digest != input.info.digest ||
      receipt.size_bytes != static_cast<std::int64_t>(input.info.length))
    return;
  image::VersionInfo info;
  info.image = receipt.imgid;
  info.version = receipt.version;
  info.digest = receipt.digest;
  info.size_bytes = input.info.length;
  info.virtual_size_bytes = static_cast<std::uint64_t>(receipt.virtual_size_bytes);
  info.format = receipt.format;
  info.parent = receipt.parent;
  cache.adopt(input.data, info);
}

Result<std::string> relay(const UploadRelayOptions& options, ImageCache* cache,
                          const transfer::ProcessInput& input, std::stop_token stop) {
  if (auto ok = check_digest(input, stop); !ok) return fail(ok.error());
  const auto& info = input.info;
  transfer::UploadRequest request;
  request.base = options.walrus;
  request.client.tls_ca_file = options.walrus_ca_file;
  request.grant =
      transfer::sign_grant(options.data_key, {"PUT", transfer::version_path(info.imgid, info.version),
                                              options.host, SystemClock().wall_ms() / 1000 + kGrantSeconds});
  request.imgid = info.imgid;
  request.version = info.version;
  request.file = input.data;
  request.cmdid = info.cmdid;
  request.digest = info.digest;
  request.format = info.format;
  request.parent = info.parent;
  request.stall_timeout = kWalrusAway;
  auto text = transfer::upload_version(request, input.progress, stop);
  if (!text) return fail(text.error(), "walrus");
  auto receipt = transfer::verify_receipt(options.data_key, *text);
  if (!receipt) return fail(receipt.error(), "receipt of walrus");
  obs::info("upload.relayed",
            {{"imgid", info.imgid}, {"version", info.version}, {"node", info.node}, {"bytes", info.length}});
  if (cache != nullptr) keep(*cache, input, *receipt);
  return *text;
}

}  // namespace

transfer::UploadServerOptions upload_relay(const UploadRelayOptions& options, ImageCache* cache) {
  transfer::UploadServerOptions out;
  out.folder = options.folder;
  out.data_key = options.data_key;
  out.max_bytes = options.max_bytes;
  out.admit = [](transfer::UploadInfo& info) { return admit(info); };
  out.processor = [options, cache](const transfer::ProcessInput& input, std::stop_token stop) {
    return relay(options, cache, input, std::move(stop));
  };
  return out;
}

}  // namespace educloud::cc
