#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"

namespace educloud::clc::api {
namespace {

http::Response list_nodes(Context& c, const Principal& who, const http::Request&) {
  return answer(c.cloud.nodes(who));
}

http::Response show_node(Context& c, const Principal& who, const http::Request& request) {
  return answer(c.cloud.node(who, request.param("host")));
}

http::Response change_node(Context& c, const Principal& who, const http::Request& request) {
  return with_body<NodeBody>(request, [&](const NodeBody& body) {
    auto state = parse_node_state(body.state);
    if (!state) return http::error_response(state.error());
    return answer(c.cloud.set_node_state(who, request.param("host"), *state));
  });
}

http::Response list_clusters(Context& c, const Principal& who, const http::Request&) {
  return answer(c.cloud.clusters(who));
}

http::Response change_cluster(Context& c, const Principal& who, const http::Request& request) {
  return with_body<ClusterBody>(request, [&](const ClusterBody& body) {
    return answer(c.cloud.set_database_mode(who, request.param("host"), body.database_mode));
  });
}

http::Response plan(Context& c, const Principal& who, const http::Request& request) {
  return with_body<PlanBody>(request, [&](const PlanBody& body) { return answer(c.cloud.plan(who, body)); });
}

}  // namespace

void add_node_routes(http::Router& router, const Shared& context) {
  add(router, context, "GET", "/nodes", list_nodes);
  add(router, context, "GET", "/nodes/{host}", show_node);
  add(router, context, "PATCH", "/nodes/{host}", change_node);
  add(router, context, "GET", "/clusters", list_clusters);
  add(router, context, "PATCH", "/clusters/{host}", change_cluster);
  add(router, context, "POST", "/plan", plan);
}

}  // namespace educloud::clc::api
