#include <charconv>

#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"

namespace educloud::clc::api {
namespace {

http::Response list_images(Context& c, const Principal& who, const http::Request& request) {
  auto page = page_request(request);
  if (!page) return http::error_response(page.error());
  return answer(c.cloud.images(who, *page));
}

http::Response create_image(Context& c, const Principal& who, const http::Request& request) {
  return with_body<ImageBody>(
      request, [&](const ImageBody& body) { return answer(c.cloud.create_image(who, body), 201); });
}

http::Response change_image(Context& c, const Principal& who, const http::Request& request) {
  return with_body<ImageChangeBody>(request, [&](const ImageChangeBody& body) {
    return answer(c.cloud.change_image(who, request.param("id"), body.change()));
  });
}

http::Response modify_image(Context& c, const Principal& who, const http::Request& request) {
  return with_body<EditBody>(request, [&](const EditBody& body) {
    return answer(c.cloud.modify_image(who, request.param("id"), body), 202);
  });
}

http::Response build_image(Context& c, const Principal& who, const http::Request& request) {
  return with_body<EditBody>(request, [&](const EditBody& body) {
    return answer(c.cloud.build_image(who, request.param("id"), body), 202);
  });
}

http::Response rollback_image(Context& c, const Principal& who, const http::Request& request) {
  return with_body<RollbackBody>(request, [&](const RollbackBody& body) {
    return answer(c.cloud.rollback_image(who, request.param("id"), body.version), 202);
  });
}

http::Response prune_image(Context& c, const Principal& who, const http::Request& request) {
  return with_body<PruneBody>(request, [&](const PruneBody& body) {
    return answer(c.cloud.prune_image(who, request.param("id"), body), 202);
  });
}

http::Response push_image(Context& c, const Principal& who, const http::Request& request) {
  return with_body<PushBody>(request, [&](const PushBody& body) {
    return answer(c.cloud.push_image(who, request.param("id"), body), 202);
  });
}

http::Response version_url(Context& c, const Principal& who, const http::Request& request) {
  int version = 0;
  const std::string& text = request.param("version");
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc{} || end != text.data() + text.size() || version < 1) {
    return http::error_response(
        Error{ErrorCode::invalid_argument, "a version is a number from 1", "version"});
  }
  return with_body<UrlBody>(request, [&](const UrlBody& body) {
    return answer(c.cloud.version_url(who, request.param("id"), version, body.valid_s));
  });
}

}  // namespace

void add_image_routes(http::Router& router, const Shared& context) {
  add(router, context, "GET", "/images", list_images);
  add(router, context, "POST", "/images", create_image);
  add(router, context, "GET", "/images/{id}",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.image(who, request.param("id")));
      });
  add(router, context, "PATCH", "/images/{id}", change_image);
  add(router, context, "DELETE", "/images/{id}",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.delete_image(who, request.param("id")), 202);
      });
  add(router, context, "GET", "/images/{id}/versions",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.versions(who, request.param("id")));
      });
  add(router, context, "POST", "/images/{id}/modify", modify_image);
  add(router, context, "POST", "/images/{id}/build", build_image);
  add(router, context, "POST", "/images/{id}/rollback", rollback_image);
  add(router, context, "POST", "/images/{id}/prune", prune_image);
  add(router, context, "POST", "/images/{id}/push", push_image);
  add(router, context, "POST", "/images/{id}/versions/{version}/url", version_url);
}

}  // namespace educloud::clc::api
