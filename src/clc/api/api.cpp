#include "clc/api/api.hpp"

#include <charconv>

#include "clc/api/context.hpp"

namespace educloud::clc {
namespace api {
namespace {

constexpr int kPageMost = 500;
constexpr std::size_t kCursorBytes = 256;
constexpr std::size_t kTokenBytes = 512;

}  // namespace

std::string_view bearer_token(const http::Request& request) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string_view header = request.header("Authorization");
  if (header.size() <= kScheme.size() || header.size() > kTokenBytes) return {};
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    const char lower = header[i] >= 'A' && header[i] <= 'Z' ? static_cast<char>(header[i] + 32) : header[i];
    if (lower != kScheme[i]) return {};
  }
  return header.substr(kScheme.size());
}

void secure(http::Response& response) {
  response.headers["X-Content-Type-Options"] = "nosniff";
  response.headers["X-Frame-Options"] = "DENY";
  response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'";
  response.headers["Referrer-Policy"] = "no-referrer";
  response.headers["Cache-Control"] = "no-store";
  if (response.status == 401) response.headers["WWW-Authenticate"] = "Bearer realm=\"educloud\"";
}

void add(http::Router& router, const Shared& context, std::string method, const std::string& pattern,
         Handler handler) {
  http::Route route;
  route.method = std::move(method);
  route.pattern = kApiBase + pattern;
  route.body_limit = limits::kJsonBodyBytes;
  route.handler = [context, handler = std::move(handler)](const http::Request& request) {
    auto who = context->cloud.authenticate(bearer_token(request));
    auto response = who ? handler(*context, *who, request) : http::error_response(who.error());
    secure(response);
    return response;
  };
  router.add(std::move(route));
}

Result<bool> force_asked(const http::Request& request) {
  const auto at = request.query.find("force");
  if (at == request.query.end() || at->second == "false") return false;
  if (at->second == "true") return true;
  return fail(ErrorCode::invalid_argument, "'force' is true or false", "force");
}

Result<PageRequest> page_request(const http::Request& request) {
  PageRequest page;
  if (const auto at = request.query.find("limit"); at != request.query.end()) {
    const std::string& text = at->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), page.limit);
    const bool whole = error == std::errc{} && end == text.data() + text.size() && !text.empty();
    if (!whole || page.limit < 1 || page.limit > kPageMost) {
      return fail(ErrorCode::invalid_argument, "'limit' is a number from 1 to " + std::to_string(kPageMost),
                  "limit");
    }
  }
  if (const auto at = request.query.find("cursor"); at != request.query.end()) {
    if (at->second.size() > kCursorBytes) {
      return fail(ErrorCode::invalid_argument, "'cursor' is what 'next' of the page before said", "cursor");
    }
    page.cursor = at->second;
  }
  return page;
}

}  // namespace api

http::Router make_api(Cloud& cloud, ApiOptions options) {
  http::Router router;
  auto context = std::make_shared<api::Context>(cloud, options);
  api::add_session_routes(router, context);
  api::add_node_routes(router, context);
  api::add_image_routes(router, context);
  api::add_vm_routes(router, context);
  api::add_operation_routes(router, context);
  api::add_type_routes(router, context);
  api::add_task_routes(router, context);
  api::add_safety_routes(router, context);
  return router;
}

std::string list_routes(const http::Router& router) {
  std::vector<std::string> lines;
  for (const auto& route : router.routes()) lines.push_back(route.method + " " + route.pattern + "\n");
  std::sort(lines.begin(), lines.end());
  std::string out;
  for (const auto& line : lines) out += line;
  return out;
}

}  // namespace educloud::clc
