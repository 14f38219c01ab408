#include "cc/disks/disk_files.hpp"

#include <nlohmann/json.hpp>

#include "common/sys/file.hpp"

namespace educloud::cc {
namespace {

constexpr std::size_t kMaxRecord = 16 * 1024;
constexpr const char* kRecord = "disk.json";

}  // namespace

std::filesystem::path DiskFiles::disk(const DiskRecord& record) const {
  if (!record.build_imgid.empty()) return root_ / "tmp" / "images" / record.build_imgid / "database";
  return folder(record.instance) / "database";
}

Result<std::optional<DiskRecord>> DiskFiles::load(const InstanceId& instance) const {
  const auto path = folder(instance) / kRecord;
  auto text = sys::read_file(path, kMaxRecord);
  if (!text && text.error().code == ErrorCode::not_found) return std::nullopt;
  if (!text) return fail(text.error());
  try {
    const auto json = nlohmann::json::parse(*text);
    DiskRecord out;
    out.instance = instance;
    out.build_imgid = json.at("build_imgid").get<std::string>();
    out.epoch = json.at("epoch").get<std::int64_t>();
    out.node = json.at("node").get<std::string>();
    out.address = json.at("address").get<std::string>();
    out.secret = json.at("secret").get<std::string>();
    out.mode = json.value("mode", "iscsi");
    out.port = json.value("port", 0);
    out.is_open = json.at("is_open").get<bool>();
    out.submitted = json.at("submitted").get<std::string>();
    out.receipt = json.at("receipt").get<std::string>();
    out.joining_epoch = json.value("joining_epoch", std::int64_t{0});
    out.joining_node = json.value("joining_node", "");
    out.joining_address = json.value("joining_address", "");
    out.copy = json.value("copy", "");
    out.is_out = json.value("is_out", false);
    out.returned = json.value("returned", "");
    out.spent = json.value("spent", "");
    out.left = json.value("left", "");
    // It becomes part of a path.
    if (!out.build_imgid.empty() && !ImageId::parse(out.build_imgid)) {
      return fail(ErrorCode::corrupt, path.string() + ": build_imgid is no image");
    }
    return out;
  } catch (const nlohmann::json::exception&) {
    // Its content holds a secret: not even a part of it is shown.
    return fail(ErrorCode::corrupt, path.string() + " is no record of a disk: close the VM, remove the file");
  }
}

Result<> DiskFiles::save(const DiskRecord& record) const {
  for (const auto& one : {folder(record.instance), disk(record).parent_path()}) {
    if (auto made = sys::make_directories(one, 0700); !made) return made;
  }
  const nlohmann::json json = {{"v", 1},
                               {"build_imgid", record.build_imgid},
                               {"epoch", record.epoch},
                               {"node", record.node},
                               {"address", record.address},
                               {"mode", record.mode},
                               {"port", record.port},
                               {"secret", record.secret},
                               {"is_open", record.is_open},
                               {"submitted", record.submitted},
                               {"receipt", record.receipt},
                               {"joining_epoch", record.joining_epoch},
                               {"joining_node", record.joining_node},
                               {"joining_address", record.joining_address},
                               {"copy", record.copy},
                               {"is_out", record.is_out},
                               {"returned", record.returned},
                               {"spent", record.spent},
                               {"left", record.left}};
  return sys::write_file_atomically(folder(record.instance) / kRecord, json.dump(), 0600);
}

Result<> DiskFiles::remove(const DiskRecord& record) const {
  const auto file = disk(record);
  std::error_code error;
  for (const auto* end : {"", ".part", ".back"}) {
    std::filesystem::remove(file.string() + end, error);
    if (error) return fail(ErrorCode::internal, "remove " + file.string() + end + ": " + error.message());
  }
  if (std::filesystem::exists(file.parent_path(), error)) {
    if (auto ok = sys::sync_path(file.parent_path()); !ok) return ok;
  }
  // Empty by now, or somebody else's: then it stays.
  if (!record.build_imgid.empty()) std::filesystem::remove(file.parent_path(), error);
  // Last: a repetition after a kill still finds where the disk is.
  const auto own = folder(record.instance);
  if (!std::filesystem::exists(own, error)) return {};
  std::filesystem::remove_all(own, error);
  if (error) return fail(ErrorCode::internal, "remove " + own.string() + ": " + error.message());
  return sys::sync_path(own.parent_path());
}

Result<> DiskFiles::check_build(const std::string& imgid) const {
  bool is_known = true;
  for (const auto& instance : list()) {
    auto record = load(instance);
    is_known = is_known && record;
    if (record && *record && (*record)->build_imgid == imgid)
      return fail(ErrorCode::conflict, "the database disk of the build of " + imgid + " is that of " +
                                           instance.str() + ": delete that task first");
  }
  DiskRecord unheard_of;
  unheard_of.build_imgid = imgid;
  std::error_code error;
  if (is_known || !std::filesystem::exists(disk(unheard_of), error)) return {};
  return fail(ErrorCode::conflict,
              disk(unheard_of).string() + " may be that of an instance whose disk.json cannot be read");
}

std::vector<InstanceId> DiskFiles::list() const {
  std::vector<InstanceId> out;
  std::error_code error;
  for (std::filesystem::directory_iterator it(root_ / "instances", error), end; !error && it != end;
       it.increment(error)) {
    auto id = InstanceId::parse(it->path().filename().string());
    if (id && std::filesystem::exists(it->path() / kRecord)) out.push_back(*id);
  }
  return out;
}

}  // namespace educloud::cc
