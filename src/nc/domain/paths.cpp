#include "nc/domain/paths.hpp"

#include <string>

namespace educloud::nc {

Result<DiskPath> parse_disk_path(std::string_view file) {
  const std::string_view whole = file;
  DiskPath path;
  if (file.starts_with("tmp/")) {
    path.kind = DiskPath::Kind::build;
    file.remove_prefix(4);
  }
  constexpr std::string_view kBegin = "images/";
  constexpr std::string_view kEnd = "/machine";
  auto refuse = [&] {
    std::string shown(whole.substr(0, 60));
    for (char& c : shown) c = c < 0x20 || c == 0x7f ? '?' : c;
    return fail(ErrorCode::invalid_argument,
                "disk file '" + shown + "' is neither images/<imgid>/machine nor tmp/images/<imgid>/machine",
                "disks");
  };
  if (!file.starts_with(kBegin) || !file.ends_with(kEnd) || file.size() <= kBegin.size() + kEnd.size()) {
    return refuse();
  }
  file.remove_prefix(kBegin.size());
  file.remove_suffix(kEnd.size());
  auto image = ImageId::parse(file);
  if (!image) return refuse();
  path.image = std::move(*image);
  return path;
}

}  // namespace educloud::nc
