#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud {

/// A checked name. The only way to get one is `Tag::parse`, so whoever holds one may put it into a
/// path, a queue name or a URL without looking again.
template <class Tag>
class Id {
 public:
  Id() = default;  ///< empty; `empty()` is true
  const std::string& str() const { return value_; }
  bool empty() const { return value_.empty(); }
  auto operator<=>(const Id&) const = default;

  /// Errors: invalid_argument naming the value (cut to 60 characters) and the form it must have.
  static Result<Id> parse(std::string_view text);

 private:
  friend Tag;
  explicit Id(std::string value) : value_(std::move(value)) {}
  std::string value_;
};

struct ImageIdTag;     // IMG + 8 hex digits, lower case
struct InstanceIdTag;  // VD, TVD, VS or TMP + 8 hex digits, lower case
struct HostNameTag;    // [a-z0-9-]{1,40}, not starting or ending with '-'
struct CommandIdTag;   // UUIDv7, lower case
using ImageId = Id<ImageIdTag>;
using InstanceId = Id<InstanceIdTag>;
using HostName = Id<HostNameTag>;
using CommandId = Id<CommandIdTag>;

/// What kind of VM an instance id names.
enum class InstanceKind { VD, TVD, VS, TMP };
InstanceKind kind_of(const InstanceId& id);
std::string_view to_string(InstanceKind kind);

/// `srcimgid:dstimgid:insid`. Not unique per run, so never a key for idempotency (that is CommandId).
struct TaskId {
  ImageId source;
  ImageId target;
  InstanceId instance;

  std::string str() const { return source.str() + ":" + target.str() + ":" + instance.str(); }
  bool is_build() const { return source != target; }
  auto operator<=>(const TaskId&) const = default;
  static Result<TaskId> parse(std::string_view text);
};

/// New random ids (getrandom). 32 bits of randomness: the caller's unique constraint decides.
ImageId new_image_id();
InstanceId new_instance_id(InstanceKind kind);
/// UUIDv7: 48 bits of unix milliseconds, then random, so rows sort by age.
CommandId new_command_id();

}  // namespace educloud
