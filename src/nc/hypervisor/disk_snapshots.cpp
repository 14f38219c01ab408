#include "nc/hypervisor/disk_snapshots.hpp"

#include "common/sys/file.hpp"
#include "common/sys/process.hpp"

namespace educloud::nc {
namespace {

Result<> qemu_img(const std::string& order, const std::filesystem::path& file, const std::string& name) {
  const nlohmann::json alone{
      {"driver", "qcow2"}, {"backing", nullptr}, {"file", {{"driver", "file"}, {"filename", file.string()}}}};
  auto done = sys::run_checked({.argv = {"qemu-img", "snapshot", "-q", order, name, "json:" + alone.dump()}});
  if (done) return sys::sync_path(file);
  auto error = done.error();
  if (error.message.find("No space left") != std::string::npos) error.code = ErrorCode::exhausted;
  if (error.message.find("not found") != std::string::npos ||
      error.message.find("Can't find") != std::string::npos)
    error.code = ErrorCode::not_found;
  return fail(std::move(error), "snapshot " + name);
}

}  // namespace

std::vector<DiskSnapshot> snapshots_of(const nlohmann::json& image_info) {
  std::vector<DiskSnapshot> all;
  if (!image_info.contains("snapshots") || !image_info["snapshots"].is_array()) return all;
  for (const auto& one : image_info["snapshots"]) {
    if (!one.is_object() || !one.contains("name") || !one["name"].is_string()) continue;
    all.push_back({one["name"].get<std::string>(), one.value("vm-state-size", std::int64_t{0}) > 0});
  }
  return all;
}

Result<std::vector<DiskSnapshot>> list_snapshots(const std::filesystem::path& file) {
  auto told =
      sys::run_checked({.argv = {"qemu-img", "info", "-U", "-f", "qcow2", "--output=json", file.string()}});
  if (!told) return fail(told.error());
  const auto info = nlohmann::json::parse(*told, nullptr, false);
  if (!info.is_object()) return fail(ErrorCode::internal, "qemu-img info: no JSON object");
  return snapshots_of(info);
}

Result<> create_snapshot(const std::filesystem::path& file, const std::string& name) {
  return qemu_img("-c", file, name);
}

Result<> apply_snapshot(const std::filesystem::path& file, const std::string& name) {
  return qemu_img("-a", file, name);
}

Result<> delete_snapshot(const std::filesystem::path& file, const std::string& name) {
  return qemu_img("-d", file, name);
}

}  // namespace educloud::nc
