#include "walrus/api/routes.hpp"

#include "common/obs/metrics.hpp"
#include "common/transfer/raw_route.hpp"

namespace educloud::walrus {
namespace {

http::Response serve(const http::Request& request, const Api& api) {
  auto target = transfer::check_raw_request(request, api.data_key, api.clock.wall_ms() / 1000);
  if (!target) return http::error_response(target.error());
  auto response = transfer::serve_raw(request, api.store, *target);
  if (const auto* file = std::get_if<http::FileBody>(&response.body);
      file != nullptr && request.method == "GET") {
    obs::metrics().count("educloud_walrus_download_bytes_total", "Bytes of images that were asked for",
                         static_cast<double>(file->length));
  }
  return response;
}

}  // namespace

void add_routes(http::Router& router, const Api& api) {
  for (const char* method : {"GET", "HEAD"}) {
    router.add({method, std::string(transfer::kRawPattern),
                [api](const http::Request& request) { return serve(request, api); }});
  }
  router.add({"GET", "/health", [api](const http::Request&) { return http::json_response(api.health()); }});
}

}  // namespace educloud::walrus
