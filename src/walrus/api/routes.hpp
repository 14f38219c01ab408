#pragma once

#include <functional>
#include <string>

#include "common/base/clock.hpp"
#include "common/http/message.hpp"
#include "common/image/version_store.hpp"

namespace educloud::walrus {

/// What the routes need. All of it outlives the server.
struct Api {
  const image::VersionStore& store;
  const Clock& clock;
  std::string data_key;
  std::function<nlohmann::json()> health;
};

/// GET|HEAD /images/{id}/versions/{version}/raw (grant), GET /health. The uploads bring their own routes.
void add_routes(http::Router& router, const Api& api);

}  // namespace educloud::walrus
