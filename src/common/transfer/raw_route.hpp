#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/http/message.hpp"

namespace educloud::image {
class VersionStore;
}

namespace educloud::transfer {

/// What `GET|HEAD /images/{id}/versions/{version}/raw` asks for, after its ids and its grant were checked.
struct RawTarget {
  std::string imgid;
  int version = 0;
  std::string node;  ///< the grant's
};
inline constexpr std::string_view kRawPattern = "/images/{id}/versions/{version}/raw";

/// Errors: invalid_argument (ids), permission_denied (grant).
Result<RawTarget> check_raw_request(const http::Request& request, std::string_view data_key,
                                    std::int64_t now_s);

/// The file of a published version with Range, ETag (its digest) and 304. Not there: not_found as 404.
http::Response serve_raw(const http::Request& request, const image::VersionStore& store,
                         const RawTarget& target);

}  // namespace educloud::transfer
