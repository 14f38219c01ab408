#include "nc/domain/paths.hpp"

#include <array>
#include <string>

namespace educloud::nc {
namespace {

struct Form {
  DiskPath::Kind kind;
  std::string_view begin, end;
};
constexpr std::string_view kDataDisk = "images/data";
constexpr std::array kForms = {
    Form{DiskPath::Kind::image, "images/", "/machine"},
    Form{DiskPath::Kind::build, "tmp/images/", "/machine"},
    Form{DiskPath::Kind::image_database, "space/database/images/", "/database"},
    Form{DiskPath::Kind::build_database, "space/database/tmp/images/", "/database"},
    Form{DiskPath::Kind::instance_database, "space/database/instances/", "/database"},
};

}  // namespace

Result<DiskPath> parse_disk_path(std::string_view file) {
  DiskPath path;
  if (file == kDataDisk) {
    path.kind = DiskPath::Kind::data;
    return path;
  }
  for (const auto& form : kForms) {
    if (!file.starts_with(form.begin) || !file.ends_with(form.end)) continue;
    if (file.size() <= form.begin.size() + form.end.size()) continue;
    const auto id = file.substr(form.begin.size(), file.size() - form.begin.size() - form.end.size());
    path.kind = form.kind;
    auto instance = InstanceId::parse(id);
    if (form.kind == DiskPath::Kind::instance_database) {
      if (!instance) break;
      path.instance = std::move(*instance);
      return path;
    }
    auto image = ImageId::parse(id);
    if (!image) continue;
    path.image = std::move(*image);
    return path;
  }
  std::string shown(file.substr(0, 60));
  for (char& c : shown) c = c < 0x20 || c == 0x7f ? '?' : c;
  return fail(ErrorCode::invalid_argument,
              "disk file '" + shown + "' is none of the files that a VM's disk is made of", "disks");
}

}  // namespace educloud::nc
