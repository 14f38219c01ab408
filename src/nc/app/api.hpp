#pragma once

#include <string>

#include "common/base/clock.hpp"
#include "common/http/message.hpp"
#include "nc/domain/paths.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

struct ApiOptions {
  Layout layout{"/storage"};
  std::string host;
  std::string node_key;
};

/// `GET /health`; with a grant signed by the node's key `GET /instances/{insid}/console` (the last 256 KiB,
/// text/plain) and `GET /instances/{insid}/screenshot` (image/png). References must outlive the server.
http::Router make_router(ApiOptions options, Hypervisor& hypervisor, const Clock& clock);

}  // namespace educloud::nc
