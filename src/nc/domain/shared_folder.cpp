#include "nc/domain/shared_folder.hpp"

#include <algorithm>

namespace educloud::nc {
namespace {

constexpr std::string_view kSoftware = "space/software";
constexpr std::string_view kPubData = "space/pub-data";
constexpr std::string_view kPrvData = "space/prv-data/";
constexpr std::size_t kLongestUser = 32;
constexpr const char* kKey = "runtime_option.folders";

bool is_user(std::string_view name) {
  const auto is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  if (name.empty() || name.size() > kLongestUser || !is_lower(name.front())) return false;
  return std::ranges::all_of(name, [&](char c) {
    return is_lower(c) || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

tl::unexpected<Error> refuse(std::string_view what, std::string_view why) {
  std::string shown(what.substr(0, 60));
  for (char& c : shown) c = c < 0x20 || c == 0x7f ? '?' : c;
  return fail(ErrorCode::invalid_argument, "folder '" + shown + "' " + std::string(why), kKey);
}

Result<SharedFolder> parse_folder(const msg::Folder& folder) {
  SharedFolder parsed;
  if (folder.name.size() != 1 || folder.name[0] < 'd' || folder.name[0] > 'z') {
    return refuse(folder.name, "is no drive from d to z");
  }
  parsed.drive = folder.name;
  parsed.read_only = folder.read_only != 0;
  if (folder.path == kSoftware) return parsed;
  if (folder.path == kPubData) {
    parsed.share = SharedFolder::Share::pub_data;
    return parsed;
  }
  if (!folder.path.starts_with(kPrvData)) {
    return refuse(folder.path, "is neither space/software nor space/pub-data nor space/prv-data/<user>");
  }
  parsed.share = SharedFolder::Share::prv_data;
  parsed.user = folder.path.substr(kPrvData.size());
  if (!is_user(parsed.user)) return refuse(folder.path, "does not name a user: [a-z][a-z0-9._-]{0,31}");
  return parsed;
}

}  // namespace

std::string SharedFolder::name() const {
  switch (share) {
    case Share::software: return std::string(kSoftware);
    case Share::pub_data: return std::string(kPubData);
    case Share::prv_data: return std::string(kPrvData) + user;
  }
  return {};
}

Result<std::vector<SharedFolder>> parse_folders(const std::vector<msg::Folder>& folders) {
  std::vector<SharedFolder> all;
  for (const auto& folder : folders) {
    auto parsed = parse_folder(folder);
    if (!parsed) return fail(parsed.error());
    const auto has_drive = [&](const SharedFolder& other) { return other.drive == parsed->drive; };
    if (std::ranges::any_of(all, has_drive)) return refuse(folder.path, "has a drive that is taken");
    all.push_back(std::move(*parsed));
  }
  return all;
}

bool is_plain_path(const std::filesystem::path& path) {
  return std::ranges::all_of(path.native(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' ||
           c == '.' || c == '_' || c == '-';
  });
}

std::string smb_config(const std::vector<SharedFolder>& folders, const std::filesystem::path& state,
                       const std::string& account) {
  std::string text = "[global]\n";
  for (const char* key : {"private dir", "lock directory", "state directory", "cache directory",
                          "pid directory", "ncalrpc dir"}) {
    text += "  " + std::string(key) + " = " + state.string() + "\n";
  }
  text += "  smb passwd file = " + (state / "smbpasswd").string() + "\n";
  text += "  log file = " + (state / "log.smbd").string() + "\n";
  text += "  guest account = " + account + "\n";
  // Whoever the guest says it is: only it reaches this server, and the folders are its user's.
  text +=
      "  security = user\n  map to guest = Bad User\n"
      "  server min protocol = SMB2\n  server smb encrypt = off\n"
      "  interfaces = 127.0.0.1\n  bind interfaces only = yes\n"
      "  load printers = no\n  printing = bsd\n  printcap name = /dev/null\n  disable spoolss = yes\n"
      "  usershare max shares = 0\n  max log size = 100\n"
      // Others write to the same files, and smbd does not hear of it.
      "  oplocks = no\n  level2 oplocks = no\n  kernel oplocks = no\n"
      "  unix extensions = no\n  follow symlinks = no\n  wide links = no\n  allow insecure wide links = no\n";
  for (const auto& folder : folders) {
    text += "[" + folder.drive + "]\n  path = " + folder.source.string() + "\n  guest ok = yes\n" +
            "  force user = " + account + "\n" +
            "  read only = " + std::string(folder.read_only ? "yes" : "no") + "\n";
  }
  return text;
}

}  // namespace educloud::nc
