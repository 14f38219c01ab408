#include "common/transfer/raw_route.hpp"

#include <fcntl.h>

#include <charconv>

#include "common/base/ids.hpp"
#include "common/image/version_store.hpp"
#include "common/sys/file.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::transfer {

Result<RawTarget> check_raw_request(const http::Request& request, std::string_view data_key,
                                    std::int64_t now_s) {
  auto imgid = ImageId::parse(request.param("id"));
  if (!imgid) return fail(imgid.error());
  const std::string& text = request.param("version");
  int version = 0;
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (errc != std::errc{} || end != text.data() + text.size() || version < 1 ||
      std::to_string(version) != text) {
    return fail(ErrorCode::invalid_argument, "version must be a number from 1", "version");
  }
  auto node = verify_grant(data_key, request.method, raw_path(imgid->str(), version), request.query, now_s);
  if (!node) return fail(node.error());
  return RawTarget{imgid->str(), version, *node};
}

http::Response serve_raw(const http::Request& request, const image::VersionStore& store,
                         const RawTarget& target) {
  auto info = store.find(target.imgid, target.version);
  if (!info) return http::error_response(info.error());
  auto fd = sys::open_file(store.machine_path(target.imgid, target.version), O_RDONLY);
  if (!fd) return http::error_response(fd.error());
  store.touch(target.imgid, target.version);
  return http::file_response(request, fd->release(), info->size_bytes, info->digest);
}

}  // namespace educloud::transfer
