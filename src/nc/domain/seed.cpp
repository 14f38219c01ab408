#include "nc/domain/seed.hpp"

#include <array>
#include <string_view>

namespace educloud::nc {
namespace {

constexpr std::size_t kSector = 512;
constexpr std::size_t kSectors = 1024;
constexpr std::size_t kFatSectors = 3;
constexpr std::size_t kFats = 2;
constexpr std::size_t kRootEntries = 16;
constexpr std::size_t kRootAt = (1 + kFats * kFatSectors) * kSector;
constexpr std::size_t kDataAt = kRootAt + kRootEntries * 32;
constexpr std::string_view kLabel = "CIDATA     ";
constexpr std::uint16_t kFirstDay = 0x21;  // 1980-01-01
constexpr unsigned kLastCluster = 0xfff;
constexpr std::size_t kEntryBytes = 32;

void put16(std::string& out, std::size_t at, std::size_t value) {
  out[at] = static_cast<char>(value & 0xff);
  out[at + 1] = static_cast<char>(value >> 8 & 0xff);
}

void put(std::string& out, std::size_t at, std::string_view text) {
  out.replace(at, text.size(), text);
}

void put_boot_sector(std::string& disk, const InstanceId& insid) {
  put(disk, 0,
      "\xeb\x3c\x90"
      "EDUCLOUD");
  put16(disk, 11, kSector);
  disk[13] = 1;  // sectors in a cluster
  put16(disk, 14, 1);
  disk[16] = static_cast<char>(kFats);
  put16(disk, 17, kRootEntries);
  put16(disk, 19, kSectors);
  disk[21] = '\xf8';
  put16(disk, 22, kFatSectors);
  put16(disk, 24, 32);
  put16(disk, 26, 2);
  disk[36] = '\x80';
  disk[38] = '\x29';
  const std::string_view id = insid.str();
  put(disk, 39, id.substr(id.size() - 4));
  put(disk, 43, kLabel);
  put(disk, 54, "FAT12   ");
  put16(disk, 510, 0xaa55);
}

/// 12 bits each, two in three bytes, in every copy of the table.
void set_next(std::string& disk, std::size_t cluster, unsigned next) {
  for (std::size_t copy = 0; copy < kFats; ++copy) {
    const std::size_t at = (1 + copy * kFatSectors) * kSector + cluster * 3 / 2;
    const auto low = static_cast<unsigned char>(disk[at]), high = static_cast<unsigned char>(disk[at + 1]);
    const unsigned old = low | static_cast<unsigned>(high) << 8;
    put16(disk, at, cluster % 2 == 1 ? (old & 0x00f) | next << 4 : (old & 0xf000) | next);
  }
}

/// The long name's entry, which stands before the short one's. At most 13 letters.
std::string long_entry(std::string_view name, std::string_view short_name) {
  unsigned char sum = 0;
  for (const char c : short_name)
    sum = static_cast<unsigned char>((sum >> 1 | sum << 7) + static_cast<unsigned char>(c));
  std::string entry(kEntryBytes, '\0');
  entry[0] = '\x41';
  entry[11] = '\x0f';
  entry[13] = static_cast<char>(sum);
  constexpr std::array<std::size_t, 13> kPlaces{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};
  for (std::size_t i = 0; i < kPlaces.size(); ++i) {
    const std::size_t letter = i < name.size()    ? static_cast<unsigned char>(name[i])
                               : i == name.size() ? 0
                                                  : 0xffff;
    put16(entry, kPlaces[i], letter);
  }
  return entry;
}

std::string short_entry(std::string_view name, char attributes, std::size_t cluster, std::size_t bytes) {
  std::string entry(kEntryBytes, '\0');
  put(entry, 0, name);
  entry[11] = attributes;
  put16(entry, 16, kFirstDay);
  put16(entry, 18, kFirstDay);
  put16(entry, 24, kFirstDay);
  put16(entry, 26, cluster);
  put16(entry, 28, bytes & 0xffff);
  put16(entry, 30, bytes >> 16);
  return entry;
}

std::string dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string seed_meta_data(const InstanceId& insid, const msg::FirstBoot& first_boot) {
  nlohmann::json json{{"instance-id", insid.str()}};
  if (!first_boot.hostname.empty()) json["local-hostname"] = first_boot.hostname;
  return dump(json) + "\n";
}

std::string seed_user_data(const msg::FirstBoot& first_boot) {
  nlohmann::json json = nlohmann::json::object();
  if (!first_boot.hostname.empty()) json["hostname"] = first_boot.hostname;
  nlohmann::json keys = nlohmann::json::array();
  if (!first_boot.ssh_key.empty()) keys.push_back(first_boot.ssh_key);
  const bool has_password = !first_boot.password_hash.empty();
  if (has_password) json["ssh_pwauth"] = true;
  if (!first_boot.user.empty()) {
    nlohmann::json user{{"name", first_boot.user},
                        {"shell", "/bin/bash"},
                        {"sudo", "ALL=(ALL) NOPASSWD:ALL"},
                        {"lock_passwd", !has_password}};
    if (!keys.empty()) user["ssh_authorized_keys"] = keys;
    // The first for a user that is made, the second for one that the image has already.
    if (has_password) user["passwd"] = user["hashed_passwd"] = first_boot.password_hash;
    json["users"] = nlohmann::json::array({user});
  } else {
    if (!keys.empty()) json["ssh_authorized_keys"] = keys;
    if (has_password) {
      json["password"] = first_boot.password_hash;
      json["chpasswd"] = {{"expire", false}};
    }
  }
  return "#cloud-config\n" + dump(json) + "\n";
}

std::string seed_disk(const InstanceId& insid, const msg::FirstBoot& first_boot) {
  std::string disk(kSectors * kSector, '\0');
  put_boot_sector(disk, insid);
  set_next(disk, 0, 0xff8);
  set_next(disk, 1, kLastCluster);
  std::string root = short_entry(kLabel, '\x08', 0, 0);
  std::size_t cluster = 2;
  const auto add = [&](std::string_view name, std::string_view short_name, const std::string& content) {
    const std::size_t count = (content.size() + kSector - 1) / kSector;
    root += long_entry(name, short_name) + short_entry(short_name, '\x20', cluster, content.size());
    put(disk, kDataAt + (cluster - 2) * kSector, content);
    for (std::size_t i = 0; i < count; ++i, ++cluster)
      set_next(disk, cluster, i + 1 == count ? kLastCluster : static_cast<unsigned>(cluster + 1));
  };
  // FirstBoot's fields are bounded by the message: a few sectors each.
  add("meta-data", "META-D~1   ", seed_meta_data(insid, first_boot));
  add("user-data", "USER-D~1   ", seed_user_data(first_boot));
  put(disk, kRootAt, root);
  return disk;
}

}  // namespace educloud::nc
