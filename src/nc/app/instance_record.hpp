#pragma once

#include <optional>
#include <string>

#include "common/msg/codec.hpp"
#include "common/msg/command.hpp"
#include "nc/domain/paths.hpp"

namespace educloud::nc {

/// A version that had not all arrived when the instance started: what it takes to go on reading it.
struct LazyRecord {
  msg::ImageVersion source;
  std::string grant;  ///< to fetch the rest from the cc
  std::string priority = "user";

  static constexpr auto fields() {
    using T = LazyRecord;
    return std::make_tuple(msg::field("source", &T::source),
                           msg::option("grant", &T::grant, msg::text(0, 512)),
                           msg::option("priority", &T::priority, msg::text(0, 20)));
  }
  bool operator==(const LazyRecord& other) const {
    return source.imgid == other.source.imgid && source.version == other.source.version &&
           source.digest == other.source.digest && grant == other.grant && priority == other.priority;
  }
};

/// VMs/<insid>/instance.json, 0600: what the instance's overlay stands on.
struct InstanceRecord {
  std::string tid;
  std::string imgid;
  int version = 0;
  std::optional<LazyRecord> lazy = {};  ///< set: the overlay was made on the socket disk.nbd

  static constexpr auto fields() {
    using T = InstanceRecord;
    return std::make_tuple(
        msg::field("tid", &T::tid, msg::text(1, 64)), msg::field("imgid", &T::imgid, msg::text(11, 11)),
        msg::field("version", &T::version, msg::range(1, 1e9)), msg::option("lazy", &T::lazy));
  }
  bool operator==(const InstanceRecord&) const = default;
};

/// nullopt: there is none, or a power cut took what a desktop's said. Errors: corrupt, internal.
Result<std::optional<InstanceRecord>> read_record(const Layout& layout, const InstanceId& insid);
/// Makes the instance's folder. Durable once it returns, but for a desktop's, which nothing needs after a
/// power cut: its VM and what was in its overlay are gone too.
Result<> write_record(const Layout& layout, const InstanceId& insid, const InstanceRecord& record);
/// The instances that have a record. One that cannot be read is an error: not knowing what is used is no
/// reason to take it for unused.
Result<std::vector<std::pair<InstanceId, InstanceRecord>>> all_records(const Layout& layout);

/// rm -r below the prefix. Not there: success.
Result<> remove_tree(const std::filesystem::path& path);
/// unlink. Not there: success.
Result<> remove_file(const std::filesystem::path& path);

}  // namespace educloud::nc
