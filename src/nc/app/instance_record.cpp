#include "nc/app/instance_record.hpp"

#include <system_error>

#include "common/sys/file.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kRecordBytes = 4096;
constexpr unsigned kRecordMode = 0600;  // it may hold a grant

}  // namespace

Result<std::optional<InstanceRecord>> read_record(const Layout& layout, const InstanceId& insid) {
  const auto file = layout.record(insid);
  auto text = sys::read_file(file, kRecordBytes);
  if (!text && text.error().code == ErrorCode::not_found) return std::nullopt;
  if (!text) return fail(text.error());
  auto record = msg::parse<InstanceRecord>(*text);
  if (!record) {
    return fail(ErrorCode::corrupt, file.string() + ": " + record.error().message + "; delete the task");
  }
  return std::optional(std::move(*record));
}

Result<> write_record(const Layout& layout, const InstanceId& insid, const InstanceRecord& record) {
  if (auto ok = sys::make_directories(layout.instance(insid)); !ok) return ok;
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
