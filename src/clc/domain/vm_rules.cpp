#include "clc/domain/vm_rules.hpp"

#include <algorithm>
#include <array>

namespace educloud::clc {
namespace {

constexpr std::string_view kLower = "abcdefghijklmnopqrstuvwxyz";
constexpr std::string_view kDigits = "0123456789";

bool is_one_of(char c, std::string_view set) {
  return set.find(c) != std::string_view::npos;
}

tl::unexpected<Error> refuse(std::string_view key, std::string_view rule) {
  return fail(ErrorCode::invalid_argument, "'" + std::string(key) + "' must be " + std::string(rule),
              std::string(key));
}

/// One label or several with dots, each of letters, digits and inner '-' (RFC 1123).
bool is_hostname(std::string_view text) {
  if (text.empty() || text.size() > 63) return false;
  while (true) {
    const auto dot = text.find('.');
    const auto label = text.substr(0, dot);
    if (label.empty() || label.front() == '-' || label.back() == '-') return false;
    for (const char c : label) {
      const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
      if (!is_one_of(lower, kLower) && !is_one_of(c, kDigits) && c != '-') return false;
    }
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool is_user_name(std::string_view text) {
  if (text.empty() || text.size() > 32 || (!is_one_of(text.front(), kLower) && text.front() != '_'))
    return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return is_one_of(c, kLower) || is_one_of(c, kDigits) || c == '_' || c == '-';
  });
}

/// "TYPE BASE64 [COMMENT]". The key itself begins with its type's length and name, which shows in base64 as
/// "AAAA": that much is checked, so that nobody pastes a private key or a fingerprint.
bool is_ssh_key(std::string_view text) {
  static constexpr std::array<std::string_view, 7> kTypes{"ssh-ed25519",
                                                          "ssh-rsa",
                                                          "ecdsa-sha2-nistp256",
                                                          "ecdsa-sha2-nistp384",
                                                          "ecdsa-sha2-nistp521",
                                                          "sk-ssh-ed25519@openssh.com",
                                                          "sk-ecdsa-sha2-nistp256@openssh.com"};
  if (text.size() > 1024) return false;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  const auto space = text.find(' ');
  if (space == std::string_view::npos) return false;
  if (std::find(kTypes.begin(), kTypes.end(), text.substr(0, space)) == kTypes.end()) return false;
  text.remove_prefix(space + 1);
  auto key = text.substr(0, text.find(' '));
  if (key.size() < 64 || key.size() % 4 != 0 || !key.starts_with("AAAA")) return false;
  for (int i = 0; i < 2 && key.ends_with('='); ++i) key.remove_suffix(1);
  return std::all_of(key.begin(), key.end(), [](char c) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    return is_one_of(lower, kLower) || is_one_of(c, kDigits) || c == '+' || c == '/';
  });
}

}  // namespace

msg::Limits changed(msg::Limits limits, const LimitsChange& change) {
  limits.cpu_percent = change.cpu_percent.value_or(limits.cpu_percent);
  limits.cpu_weight = change.cpu_weight.value_or(limits.cpu_weight);
  limits.disk_iops = change.disk_iops.value_or(limits.disk_iops);
  limits.disk_mib_s = change.disk_mib_s.value_or(limits.disk_mib_s);
  limits.net_mbit_s = change.net_mbit_s.value_or(limits.net_mbit_s);
  return limits;
}

msg::Limits effective_limits(const msg::Limits& own, const msg::Limits& type) {
  msg::Limits out;
  out.cpu_percent = own.cpu_percent != 0 ? own.cpu_percent : type.cpu_percent;
  out.cpu_weight = own.cpu_weight != 0 ? own.cpu_weight : type.cpu_weight;
  out.disk_iops = own.disk_iops != 0 ? own.disk_iops : type.disk_iops;
  out.disk_mib_s = own.disk_mib_s != 0 ? own.disk_mib_s : type.disk_mib_s;
  out.net_mbit_s = own.net_mbit_s != 0 ? own.net_mbit_s : type.net_mbit_s;
  return out;
}

Result<> check_limits(const msg::Limits& limits) {
  if (limits.cpu_percent == 0 || limits.cpu_percent >= msg::Limits::kCpuFloorPercent) return {};
  return refuse("cpu_percent", "0 (no limit) or at least " + std::to_string(msg::Limits::kCpuFloorPercent) +
                                   ": with less a guest does not even shut down");
}

std::string_view exceeding(const msg::Limits& own, const msg::Limits& type) {
  constexpr int kUsualWeight = 100;
  const auto is_more = [](std::int64_t mine, std::int64_t allowed) { return allowed != 0 && mine > allowed; };
  if (is_more(own.cpu_percent, type.cpu_percent)) return "cpu_percent";
  // A weight is always relative to the others', so there is no such thing as none.
  if (is_more(own.cpu_weight, type.cpu_weight != 0 ? type.cpu_weight : kUsualWeight)) return "cpu_weight";
  if (is_more(own.disk_iops, type.disk_iops)) return "disk_iops";
  if (is_more(own.disk_mib_s, type.disk_mib_s)) return "disk_mib_s";
  if (is_more(own.net_mbit_s, type.net_mbit_s)) return "net_mbit_s";
  return {};
}

Result<> check_first_boot(const NewFirstBoot& wanted) {
  if (!wanted.hostname.empty() && !is_hostname(wanted.hostname))
    return refuse("hostname", "a host name of at most 63 letters, digits, '-' and '.' (RFC 1123)");
  if (!wanted.user.empty() && !is_user_name(wanted.user))
    return refuse("user", "a-z, 0-9, '_' and '-', at most 32, a letter or '_' first");
  if (wanted.user.empty() && (!wanted.ssh_key.empty() || !wanted.password.empty()))
    return refuse("user", "given when an ssh_key or a password is");
  if (!wanted.ssh_key.empty() && !is_ssh_key(wanted.ssh_key))
    return refuse("ssh_key", "one line of a public key, such as \"ssh-ed25519 AAAA... name\"");
  if (wanted.password.size() > 128) return refuse("password", "at most 128 bytes");
  for (const char c : wanted.password) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      return refuse("password", "without control characters");
  }
  return {};
}

Result<> check_type_name(std::string_view name) {
  const bool ok = !name.empty() && name.size() <= 40 && is_one_of(name.front(), kLower) &&
                  std::all_of(name.begin(), name.end(), [](char c) {
                    return is_one_of(c, kLower) || is_one_of(c, kDigits) || c == '-' || c == '_';
                  });
  if (ok) return {};
  return refuse("name", "a-z, 0-9, '-' and '_', at most 40, a letter first");
}

Result<> check_folder_protocol(std::string_view text) {
  if (text.empty() || text == "virtiofs" || text == "smb") return {};
  return refuse("folder_protocol", "virtiofs or smb");
}

Result<> check_snapshot_id(std::string_view text) {
  constexpr std::string_view kPrefix = "snap-";
  bool ok = text.size() == kPrefix.size() + 8 && text.starts_with(kPrefix);
  for (std::size_t i = kPrefix.size(); ok && i < text.size(); ++i)
    ok = is_one_of(text[i], "0123456789abcdef");
  if (ok) return {};
  return refuse("snapid", "'snap-' and 8 lower-case hex digits");
}

}  // namespace educloud::clc
