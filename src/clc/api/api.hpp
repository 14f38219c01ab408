#pragma once

#include <chrono>
#include <string>

#include "clc/app/cloud.hpp"
#include "common/http/message.hpp"

namespace educloud::clc {

struct ApiOptions {
  std::chrono::seconds proxy_deadline{10};  ///< for a console log or screenshot, through cc and nc
  std::uint64_t proxy_body_limit = 16ull << 20;
  int proxy_limit = 8;  ///< console and screenshot requests at once; more are answered 503
};

/// Every path of the API starts with this.
inline constexpr const char* kApiBase = "/clc/api/1.0";

/// The HTTP API of clc, as docs/openapi.yaml describes it. Every route but POST /login and GET /health wants
/// a bearer token; rights on objects are checked by `cloud`. The router keeps references: `cloud` must
/// outlive it.
http::Router make_api(Cloud& cloud, ApiOptions options = {});

/// "METHOD /path/{name}" of every route, one per line, sorted: what the check against docs/openapi.yaml
/// reads.
std::string list_routes(const http::Router& router);

}  // namespace educloud::clc
