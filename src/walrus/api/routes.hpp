#pragma once

#include <functional>

#include "common/http/message.hpp"

namespace educloud::walrus {

/// GET /health. Uploads and the chunk protocol bring their own routes.
void add_routes(http::Router& router, std::function<nlohmann::json()> health);

}  // namespace educloud::walrus
