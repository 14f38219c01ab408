#pragma once

#include <optional>
#include <string>

#include "common/msg/codec.hpp"
#include "nc/domain/paths.hpp"

namespace educloud::nc {

/// VMs/<insid>/instance.json: what the instance's overlay stands on.
struct InstanceRecord {
  std::string tid;
  std::string imgid;
  int version = 0;
  std::string format = "qcow2";

  static constexpr auto fields() {
    using T = InstanceRecord;
    return std::make_tuple(msg::field("tid", &T::tid, msg::text(1, 64)),
                           msg::field("imgid", &T::imgid, msg::text(11, 11)),
                           msg::field("version", &T::version, msg::range(1, 1e9)),
                           msg::field("format", &T::format, msg::choice("qcow2|raw")));
  }
  bool operator==(const InstanceRecord&) const = default;
};

/// nullopt: there is none. Errors: corrupt, internal.
Result<std::optional<InstanceRecord>> read_record(const Layout& layout, const InstanceId& insid);
/// Durable once it returns; makes the instance's folder.
Result<> write_record(const Layout& layout, const InstanceId& insid, const InstanceRecord& record);

/// tmp/submit/<insid>/submit.json: a flattened image that is complete, so that a restart goes on with the
/// upload.
struct SubmitRecord {
  std::string cmdid;
  std::string digest;

  static constexpr auto fields() {
    using T = SubmitRecord;
    return std::make_tuple(msg::field("cmdid", &T::cmdid, msg::text(36, 36)),
                           msg::field("digest", &T::digest, msg::text(64, 64)));
  }
};
std::optional<SubmitRecord> read_submit(const Layout& layout, const InstanceId& insid);
Result<> write_submit(const Layout& layout, const InstanceId& insid, const SubmitRecord& record);

/// rm -r below the prefix. Not there: success.
Result<> remove_tree(const std::filesystem::path& path);
/// unlink. Not there: success.
Result<> remove_file(const std::filesystem::path& path);

}  // namespace educloud::nc
