#include "nc/app/api.hpp"

#include "common/transfer/grant.hpp"
#include "nc/app/heartbeat.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kConsoleBytes = 256 * 1024;

/// The instance a request is about, if it may.
Result<InstanceId> admit(const ApiOptions& options, const Clock& clock, const http::Request& request) {
  auto node = transfer::verify_grant(options.node_key, request.method, request.path, request.query,
                                     clock.wall_ms() / 1000);
  if (!node) return fail(node.error());
  if (*node != options.host) return fail(ErrorCode::permission_denied, "the grant is for node " + *node);
  return InstanceId::parse(request.param("insid"));
}

http::Response text_response(std::string body, const std::string& type) {
  http::Response response;
  response.headers["Content-Type"] = type;
  response.headers["Cache-Control"] = "no-store";
  // What a guest writes is shown as text and nothing else.
  response.headers["X-Content-Type-Options"] = "nosniff";
  response.body = std::move(body);
  return response;
}

}  // namespace

http::Router make_router(ApiOptions options, Hypervisor& hypervisor, const Clock& clock) {
  http::Router router;
  router.add({"GET", "/health", [&hypervisor](const http::Request&) {
                return http::json_response({{"status", "ok"}, {"hypervisor", hypervisor.kind()}});
              }});
  router.add({"GET", "/instances/{insid}/console", [options, &clock](const http::Request& request) {
                auto insid = admit(options, clock, request);
                if (!insid) return http::error_response(insid.error());
                auto text = read_console(options.layout.console(*insid), kConsoleBytes);
                if (!text && text.error().code == ErrorCode::not_found) {
                  return http::error_response(
                      {ErrorCode::not_found, "this node has no console of " + insid->str(), {}});
                }
                if (!text) return http::error_response(text.error());
                return text_response(std::move(*text), "text/plain; charset=utf-8");
              }});
  router.add(
      {"GET", "/instances/{insid}/screenshot", [options, &clock, &hypervisor](const http::Request& request) {
         auto insid = admit(options, clock, request);
         if (!insid) return http::error_response(insid.error());
         auto picture = hypervisor.screenshot(*insid);
         if (!picture) return http::error_response(picture.error());
         return text_response(std::move(*picture), "image/png");
       }});
  return router;
}

}  // namespace educloud::nc
