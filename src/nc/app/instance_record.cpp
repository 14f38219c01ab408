#include "nc/app/instance_record.hpp"

#include <system_error>

#include "common/sys/file.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kRecordBytes = 4096;

std::filesystem::path submit_file(const Layout& layout, const InstanceId& insid) {
  return layout.submit_folder(insid) / "submit.json";
}

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
  return sys::write_file_atomically(layout.record(insid), msg::serialize(record));
}

std::optional<SubmitRecord> read_submit(const Layout& layout, const InstanceId& insid) {
  auto text = sys::read_file(submit_file(layout, insid), kRecordBytes);
  if (!text) return std::nullopt;
  auto record = msg::parse<SubmitRecord>(*text);
  if (!record) return std::nullopt;
  return std::move(*record);
}

Result<> write_submit(const Layout& layout, const InstanceId& insid, const SubmitRecord& record) {
  return sys::write_file_atomically(submit_file(layout, insid), msg::serialize(record));
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
