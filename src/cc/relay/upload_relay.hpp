#pragma once

#include <filesystem>
#include <string>

#include "cc/relay/image_cache.hpp"
#include "common/transfer/upload_server.hpp"

namespace educloud::cc {

struct UploadRelayOptions {
  std::filesystem::path folder;  ///< `<prefix>/tmp/uploads`
  http::Url walrus;
  std::string walrus_ca_file = {};
  std::string data_key;
  std::string host;
  std::uint64_t max_bytes = 2ull << 40;
};

/// What the UploadServer of a cc does: takes a node's submit, checks its digest, hands it to walrus, and
/// gives walrus' receipt back. `cache` (may be null) keeps the file if walrus published the very same bytes.
transfer::UploadServerOptions upload_relay(const UploadRelayOptions& options, ImageCache* cache);

}  // namespace educloud::cc
