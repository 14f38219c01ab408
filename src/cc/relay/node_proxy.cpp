#include "cc/relay/node_proxy.hpp"

#include "common/base/ids.hpp"
#include "common/http/client.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::cc {
namespace {

constexpr std::chrono::seconds kConnect{3};
constexpr std::chrono::seconds kSilence{10};

}  // namespace

NodeProxy::NodeProxy(const NodeRegistry& nodes, const Clock& clock, std::string data_key)
    : nodes_(nodes), clock_(clock), data_key_(std::move(data_key)) {}

void NodeProxy::add_routes(http::Router& router) {
  for (const char* what : {"console", "screenshot"}) {
    router.add({.method = "GET",
                .pattern = std::string("/nodes/{nc}/instances/{insid}/") + what,
                .handler = [this, what](const http::Request& request) { return forward(request, what); }});
  }
}

http::Response NodeProxy::forward(const http::Request& request, const std::string& what) {
  if (++calls_ > kMaxCalls) {
    --calls_;
    auto busy = http::error_response({ErrorCode::unavailable, "too many consoles are being read; try again"});
    busy.headers["Retry-After"] = "1";
    return busy;
  }
  auto response = ask(request, what);
  --calls_;
  return response ? std::move(*response) : http::error_response(response.error());
}

Result<http::Response> NodeProxy::ask(const http::Request& request, const std::string& what) {
  auto node = HostName::parse(request.param("nc"));
  if (!node) return fail(node.error());
  auto instance = InstanceId::parse(request.param("insid"));
  if (!instance) return fail(instance.error());
  const std::string path = "/instances/" + instance->str() + "/" + what;
  auto granted = transfer::verify_grant(transfer::derive_node_key(data_key_, node->str()), "GET", path,
                                        request.query, clock_.wall_ms() / 1000);
  if (!granted) return fail(granted.error());
  auto address = nodes_.find(node->str(), clock_.boot_ms());
  if (!address) return fail(address.error());

  http::Url url;
  url.host = address->ip;
  url.port = address->port;
  http::ClientRequest out;
  out.target = path;
  for (const auto& [key, value] : request.query) {
    out.target += (out.target == path ? "?" : "&") + http::url_encode(key) + "=" + http::url_encode(value);
  }
  http::Client client(url, {.connect_timeout = kConnect, .io_timeout = kSilence, .body_limit = kBodyBytes});
  auto answer = client.send(out);
  if (!answer) return fail(answer.error(), "node " + node->str());
  http::Response response;
  response.status = answer->status;
  const auto type = answer->header("Content-Type");
  response.headers["Content-Type"] = type.empty() ? "application/octet-stream" : std::string(type);
  // A guest decides what its console holds: no browser may take it for a page.
  response.headers["X-Content-Type-Options"] = "nosniff";
  response.headers["Cache-Control"] = "no-store";
  response.body = std::move(answer->body);
  return response;
}

}  // namespace educloud::cc
