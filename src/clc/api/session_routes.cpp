#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"
#include "common/obs/log.hpp"

namespace educloud::clc::api {
namespace {

http::Response log_in(Context& context, const http::Request& request) {
  return with_body<LoginBody>(request, [&](const LoginBody& body) {
    auto session = context.cloud.login(body.user, body.password, request.remote_address);
    if (!session) return http::error_response(session.error());
    obs::info("api.login", {{"user", body.user}, {"remote", request.remote_address}});
    return http::json_response(to_json(*session));
  });
}

}  // namespace

void add_session_routes(http::Router& router, const Shared& context) {
  http::Route login;
  login.method = "POST";
  login.pattern = std::string(kApiBase) + "/login";
  login.body_limit = 4096;
  login.handler = [context](const http::Request& request) {
    auto response = log_in(*context, request);
    secure(response);
    return response;
  };
  router.add(std::move(login));

  http::Route health;
  health.method = "GET";
  health.pattern = "/health";
  health.handler = [](const http::Request&) { return http::json_response({{"status", "ok"}}); };
  router.add(std::move(health));

  add(router, context, "POST", "/logout", [](Context& c, const Principal&, const http::Request& request) {
    auto done = c.cloud.logout(bearer_token(request));
    return done ? http::json_response(nlohmann::json::object()) : http::error_response(done.error());
  });
  add(router, context, "GET", "/status",
      [](Context& c, const Principal& who, const http::Request&) { return answer(c.cloud.status(who)); });
}

}  // namespace educloud::clc::api
