#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "clc/api/answer_cache.hpp"
#include "clc/api/api.hpp"
#include "common/msg/codec.hpp"

namespace educloud::clc::api {

/// What the handlers share; owned by the routes.
struct Context {
  Context(Cloud& one, ApiOptions wanted) : cloud(one), options(wanted) {}
  Cloud& cloud;
  ApiOptions options;
  std::atomic<int> proxied{0};
  AnswerCache vms;
};
using Shared = std::shared_ptr<Context>;

/// A handler that knows who asks.
using Handler = std::function<http::Response(Context&, const Principal&, const http::Request&)>;

/// Adds a route below kApiBase. The bearer token is checked first (401), answers get the security headers.
void add(http::Router& router, const Shared& context, std::string method, const std::string& pattern,
         Handler handler);

/// The token of "Authorization: Bearer ..."; empty if there is none.
std::string_view bearer_token(const http::Request& request);
/// Headers that keep browsers from guessing types, framing, caching or running anything.
void secure(http::Response& response);

/// ?limit=1..500 and ?cursor=. Errors: invalid_argument naming the key.
Result<PageRequest> page_request(const http::Request& request);

/// ?force=true|false. Errors: invalid_argument.
Result<bool> force_asked(const http::Request& request);

/// The value as JSON with `status`, or the error.
template <class T>
http::Response answer(const Result<T>& result, int status = 200) {
  if (!result) return http::error_response(result.error());
  return http::json_response(to_json(*result), status);
}

/// The body as T, then `then(T)`; a malformed body is answered 400 (413 if too large) naming the key.
template <class T, class F>
http::Response with_body(const http::Request& request, const F& then) {
  auto json =
      msg::parse_json(request.body.empty() ? std::string_view("{}") : request.body, limits::kJsonBodyBytes);
  if (!json) return http::error_response(json.error());
  auto body = msg::from_json<T>(*json);
  if (!body) return http::error_response(body.error());
  return then(*body);
}

void add_session_routes(http::Router& router, const Shared& context);
void add_node_routes(http::Router& router, const Shared& context);  ///< and the dry run
void add_image_routes(http::Router& router, const Shared& context);
void add_vm_routes(http::Router& router, const Shared& context);
void add_operation_routes(http::Router& router, const Shared& context);  ///< of VMs that run; snapshots
void add_type_routes(http::Router& router, const Shared& context);
void add_safety_routes(http::Router& router, const Shared& context);  ///< dead letters, backups
void add_task_routes(http::Router& router, const Shared& context);

}  // namespace educloud::clc::api
