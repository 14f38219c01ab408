#include "walrus/api/routes.hpp"

namespace educloud::walrus {

void add_routes(http::Router& router, std::function<nlohmann::json()> health) {
  router.add({"GET", "/health",
              [health = std::move(health)](const http::Request&) { return http::json_response(health()); }});
}

}  // namespace educloud::walrus
