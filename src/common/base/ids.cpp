#include "common/base/ids.hpp"

#include "common/base/random.hpp"

namespace educloud {
namespace {

bool is_lower_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool all_lower_hex(std::string_view text) {
  for (char c : text) {
    if (!is_lower_hex(c)) return false;
  }
  return true;
}

bool is_prefixed_hex8(std::string_view text, std::string_view prefix) {
  return text.size() == prefix.size() + 8 && text.starts_with(prefix) &&
         all_lower_hex(text.substr(prefix.size()));
}

tl::unexpected<Error> refuse(std::string_view what, std::string_view value, std::string_view form) {
  std::string shown(value.substr(0, 60));
  for (char& c : shown) {
    if (c < 0x20 || c == 0x7f) c = '?';  // the value goes into logs and terminals
  }
  return fail(ErrorCode::invalid_argument,
              std::string(what) + " '" + shown + "' is not of the form " + std::string(form));
}

}  // namespace

// Each Tag is the one friend that may make its Id.
struct ImageIdTag {
  static ImageId make(std::string_view text) { return ImageId(std::string(text)); }
};
struct InstanceIdTag {
  static InstanceId make(std::string_view text) { return InstanceId(std::string(text)); }
};
struct HostNameTag {
  static HostName make(std::string_view text) { return HostName(std::string(text)); }
};
struct CommandIdTag {
  static CommandId make(std::string_view text) { return CommandId(std::string(text)); }
};

template <>
Result<ImageId> ImageId::parse(std::string_view text) {
  if (!is_prefixed_hex8(text, "IMG")) return refuse("image id", text, "IMG + 8 lower-case hex digits");
  return ImageIdTag::make(text);
}

template <>
Result<InstanceId> InstanceId::parse(std::string_view text) {
  for (std::string_view prefix : {"VD", "TVD", "VS", "TMP"}) {
    if (is_prefixed_hex8(text, prefix)) return InstanceIdTag::make(text);
  }
  return refuse("instance id", text, "VD, TVD, VS or TMP + 8 lower-case hex digits");
}

template <>
Result<HostName> HostName::parse(std::string_view text) {
  bool ok = !text.empty() && text.size() <= 40 && text.front() != '-' && text.back() != '-';
  for (char c : text) ok = ok && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-');
  if (!ok) return refuse("host name", text, "[a-z0-9-]{1,40}");
  return HostNameTag::make(text);
}

template <>
Result<CommandId> CommandId::parse(std::string_view text) {
  bool ok = text.size() == 36;
  for (std::size_t i = 0; ok && i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    ok = dash ? text[i] == '-' : is_lower_hex(text[i]);
  }
  if (!ok || text[14] != '7') return refuse("command id", text, "UUIDv7");
  return CommandIdTag::make(text);
}

InstanceKind kind_of(const InstanceId& id) {
  const std::string& text = id.str();
  if (text.starts_with("TVD")) return InstanceKind::TVD;
  if (text.starts_with("TMP")) return InstanceKind::TMP;
  if (text.starts_with("VS")) return InstanceKind::VS;
  return InstanceKind::VD;
}

std::string_view to_string(InstanceKind kind) {
  switch (kind) {
    case InstanceKind::VD: return "VD";
    case InstanceKind::TVD: return "TVD";
    case InstanceKind::VS: return "VS";
    case InstanceKind::TMP: return "TMP";
  }
  return "VD";
}

Result<TaskId> TaskId::parse(std::string_view text) {
  const auto first = text.find(':');
  const auto second = first == std::string_view::npos ? first : text.find(':', first + 1);
  if (second == std::string_view::npos) return refuse("task id", text, "srcimgid:dstimgid:insid");
  auto source = ImageId::parse(text.substr(0, first));
  if (!source) return fail(source.error(), "task id");
  auto target = ImageId::parse(text.substr(first + 1, second - first - 1));
  if (!target) return fail(target.error(), "task id");
  auto instance = InstanceId::parse(text.substr(second + 1));
  if (!instance) return fail(instance.error(), "task id");
  return TaskId{*source, *target, *instance};
}

ImageId new_image_id() {
  return ImageIdTag::make("IMG" + random_hex(4));
}

InstanceId new_instance_id(InstanceKind kind) {
  return InstanceIdTag::make(std::string(to_string(kind)) + random_hex(4));
}

CommandId new_command_id() {
  const std::int64_t ms = id_time_ms();
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (int shift = 44; shift >= 0; shift -= 4) hex += kDigits[(ms >> shift) & 0xf];
  std::string tail = random_hex(10);
  tail[0] = '7';                                                           // version
  tail[4] = "89ab"[(tail[4] >= 'a' ? tail[4] - 'a' : tail[4] - '0') % 4];  // variant
  hex += tail;
  return CommandIdTag::make(hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" +
                            hex.substr(16, 4) + "-" + hex.substr(20, 12));
}

}  // namespace educloud
