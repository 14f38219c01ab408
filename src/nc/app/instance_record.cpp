#include "nc/app/instance_record.hpp"

#include <fcntl.h>

#include <system_error>

#include "common/base/random.hpp"
#include "common/sys/file.hpp"
#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kRecordBytes = 4096;
constexpr unsigned kRecordMode = 0600;  // it may hold a grant

/// Readers see the old or the new, but for a power cut, which may leave an empty one.
Result<> replace_unsynced(const std::filesystem::path& path, const std::string& text) {
  const auto beside = path.parent_path() / (".instance." + random_hex(6) + ".tmp");
  auto fd = sys::open_file(beside, O_WRONLY | O_CREAT | O_EXCL, kRecordMode);
  if (!fd) return fail(fd.error());
  if (auto ok = sys::write_all(fd->get(), text); !ok) {
    (void)remove_file(beside);
    return fail(ok.error(), beside.string());
  }
  std::error_code error;
  std::filesystem::rename(beside, path, error);
  if (error) return fail(errno_error("rename to " + path.string(), error.value()));
  return {};
}

}  // namespace

Result<std::optional<InstanceRecord>> read_record(const Layout& layout, const InstanceId& insid) {
  const auto file = layout.record(insid);
  auto text = sys::read_file(file, kRecordBytes);
  if (!text && text.error().code == ErrorCode::not_found) return std::nullopt;
  if (!text) return fail(text.error());
  if (text->empty() && !keeps_overlay(insid)) return std::nullopt;
  auto record = msg::parse<InstanceRecord>(*text);
  if (!record) {
    return fail(ErrorCode::corrupt, file.string() + ": " + record.error().message + "; delete the task");
  }
  return std::optional(std::move(*record));
}

Result<> write_record(const Layout& layout, const InstanceId& insid, const InstanceRecord& record) {
  const auto folder = layout.instance(insid);
  if (!keeps_overlay(insid)) {
    if (auto ok = sys::make_directories(layout.instances()); !ok) return ok;
    std::error_code error;
    std::filesystem::create_directory(folder, error);
    if (error) return fail(errno_error("mkdir " + folder.string(), error.value()));
    return replace_unsynced(layout.record(insid), msg::serialize(record));
  }
  if (auto ok = sys::make_directories(folder); !ok) return ok;
  return sys::write_file_atomically(layout.record(insid), msg::serialize(record), kRecordMode);
}

Result<std::vector<std::pair<InstanceId, InstanceRecord>>> all_records(const Layout& layout) {
  std::vector<std::pair<InstanceId, InstanceRecord>> all;
  std::error_code error;
  std::filesystem::directory_iterator folders(layout.instances(), error);
  if (error == std::errc::no_such_file_or_directory) return all;
  for (; !error && folders != std::filesystem::directory_iterator(); folders.increment(error)) {
    auto insid = InstanceId::parse(folders->path().filename().string());
    if (!insid) continue;
    auto record = read_record(layout, *insid);
    if (!record) return fail(record.error());
    if (*record) all.emplace_back(std::move(*insid), std::move(**record));
  }
  if (error) return fail(errno_error("read " + layout.instances().string(), error.value()));
  return all;
}

Result<> remove_tree(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return fail(errno_error("remove " + path.string(), error.value()));
  return {};
}

Result<> remove_file(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error) return fail(errno_error("remove " + path.string(), error.value()));
  return {};
}

}  // namespace educloud::nc
